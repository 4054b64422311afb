//! Windows as ONNX describes them.

use crate::error::Result;
use crate::graph::Site;
use crate::graph::problem::Window;

/// One positive number for each axis, or 1 where nothing is said.
fn sizes(site: &Site, name: &str, rank: usize) -> Result<Vec<usize>> {
    let Some(list) = site.ints(name) else { return Ok(vec![1; rank]) };
    let all: Option<Vec<usize>> = list.iter().map(|&v| usize::try_from(v).ok().filter(|&v| v > 0)).collect();
    all.filter(|v| v.len() == rank).ok_or_else(|| site.error(format!("{name} {list:?} for {rank} axes")))
}

impl Window {
    /// Of a convolution or pooling with this kernel over these sizes. Source: ONNX, Conv and MaxPool.
    pub(super) fn new(site: &Site, input: &[usize], kernel: Vec<usize>) -> Result<Window> {
        let rank = input.len();
        let (strides, dilations) = (sizes(site, "strides", rank)?, sizes(site, "dilations", rank)?);
        let extent: Vec<usize> = (0..rank).map(|i| (kernel[i].max(1) - 1) * dilations[i] + 1).collect();
        let mode = site.str("auto_pad", "NOTSET");
        let (mut pads, mut pads_end) = explicit_pads(site, rank)?;
        if mode.starts_with("SAME") {
            for i in 0..rank {
                let out = input[i].div_ceil(strides[i]);
                let total = ((out.max(1) - 1) * strides[i] + extent[i]).saturating_sub(input[i]) as i64;
                let small = total / 2;
                (pads[i], pads_end[i]) = if mode == "SAME_LOWER" { (total - small, small) } else { (small, total - small) };
            }
        }
        let ceil = site.int("ceil_mode", 0) != 0;
        let mut output = Vec::with_capacity(rank);
        for i in 0..rank {
            let room = input[i] as i64 + pads[i] + pads_end[i] - extent[i] as i64;
            if room < 0 {
                return Err(site.error(format!("a window of {} does not fit into axis {i} of {}", extent[i], input[i])));
            }
            let (room, stride) = (room as usize, strides[i]);
            let mut out = room / stride + 1;
            // A last window that starts inside the padding after the image is left out.
            if ceil && room % stride != 0 && (out * stride) as i64 - pads[i] < input[i] as i64 {
                out += 1;
            }
            output.push(out);
        }
        Ok(Window { input: input.to_vec(), output, kernel, strides, dilations, pads, pads_end })
    }

    /// Of a transposed convolution. Source: ONNX, ConvTranspose.
    pub(super) fn transposed(site: &Site, input: &[usize], kernel: Vec<usize>) -> Result<Window> {
        let rank = input.len();
        let (strides, dilations) = (sizes(site, "strides", rank)?, sizes(site, "dilations", rank)?);
        let extra = match site.ints("output_padding") {
            Some(v) if v.len() == rank => v.to_vec(),
            Some(v) => return Err(site.error(format!("output_padding {v:?} for {rank} axes"))),
            None => vec![0; rank],
        };
        let (mut pads, mut pads_end) = explicit_pads(site, rank)?;
        let full = |i: usize| ((input[i].max(1) - 1) * strides[i] + (kernel[i].max(1) - 1) * dilations[i] + 1) as i64 + extra[i];
        let mode = site.str("auto_pad", "NOTSET");
        // A given output shape decides the pads, `output_padding` included.
        let wanted: Option<Vec<i64>> = match site.ints("output_shape") {
            Some(v) if v.len() >= rank => Some(v[v.len() - rank..].to_vec()),
            _ if mode.starts_with("SAME") => Some((0..rank).map(|i| (input[i] * strides[i]) as i64).collect()),
            _ => None,
        };
        if let Some(wanted) = &wanted {
            for i in 0..rank {
                let total = (full(i) - wanted[i]).max(0);
                let half = total / 2;
                (pads[i], pads_end[i]) = if mode == "SAME_UPPER" { (half, total - half) } else { (total - half, half) };
            }
        }
        // A given shape larger than what the taps reach is filled up with the bias.
        let room = |i: usize| wanted.as_ref().map_or(full(i) - pads[i] - pads_end[i], |w| w[i]);
        let size = |i: usize| usize::try_from(room(i)).map_err(|_| site.error("the pads cut off more than there is"));
        let output = (0..rank).map(size).collect::<Result<_>>()?;
        Ok(Window { input: input.to_vec(), output, kernel, strides, dilations, pads, pads_end })
    }
}

fn explicit_pads(site: &Site, rank: usize) -> Result<(Vec<i64>, Vec<i64>)> {
    if site.str("auto_pad", "NOTSET") != "NOTSET" {
        return Ok((vec![0; rank], vec![0; rank]));
    }
    match site.ints("pads") {
        Some(p) if p.len() == 2 * rank => Ok((p[..rank].to_vec(), p[rank..].to_vec())),
        Some(p) if !p.is_empty() => Err(site.error(format!("{} pads for {rank} axes", p.len()))),
        _ => Ok((vec![0; rank], vec![0; rank])),
    }
}
