//! `.npz` and `.npy` files. Types that numpy lacks travel as raw bits under `name#TYPE`, e.g. `x#BFLOAT16`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use crate::base::tensor::size_bytes;
use crate::base::{DType, Shape, Tensor};
use crate::error::{Error, Result};

/// Suffix of bf16 arrays stored as u16.
const BF16: &str = "#BFLOAT16";

/// All arrays of a file.
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>> {
    read_if(path, |_| true)
}

/// The arrays with names that are wanted; the others may be of any type.
pub fn read_if(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Tensor)>> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let mut archive = ZipArchive::new(file).map_err(|e| Error::file(path, format!("not an npz file: {e}")))?;
    let mut arrays = Vec::with_capacity(archive.len());
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).map_err(|e| Error::file(path, e))?;
        let name = member.name().map_err(|e| Error::file(path, e))?.into_owned();
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_string();
        if !wanted(name.strip_suffix(BF16).unwrap_or(&name)) {
            continue;
        }
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|e| Error::file(path, format!("{name}: {e}")))?;
        let tensor = parse(&bytes).map_err(|why| Error::file(path, format!("{name}: {why}")))?;
        arrays.push(match name.strip_suffix(BF16) {
            Some(plain) => (plain.to_string(), retype(&tensor, DType::BF16).map_err(|e| Error::file(path, e))?),
            None => (name, tensor),
        });
    }
    Ok(arrays)
}

/// Writes arrays to a file, stored without compression.
pub fn write<'a>(path: &Path, arrays: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<()> {
    let file = File::create(path).map_err(|e| Error::file(path, e))?;
    let mut archive = ZipWriter::new(std::io::BufWriter::new(file));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored).large_file(true);
    for (name, tensor) in arrays {
        let suffix = if tensor.dtype() == DType::BF16 { BF16 } else { "" };
        archive.start_file(format!("{name}{suffix}.npy"), options).map_err(|e| Error::file(path, e))?;
        let written = archive.write_all(&header(tensor)).and_then(|()| archive.write_all(tensor.bytes()));
        written.map_err(|e| Error::file(path, e))?;
    }
    archive.finish().and_then(|mut f| f.flush().map_err(Into::into)).map_err(|e| Error::file(path, e))
}

fn retype(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    Tensor::from_raw(dtype, tensor.shape().clone(), tensor.bytes())
}

fn header(tensor: &Tensor) -> Vec<u8> {
    let code = match tensor.dtype() {
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::F16 => "<f2",
        DType::BF16 | DType::U16 => "<u2",
        DType::I8 => "|i1",
        DType::U8 => "|u1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::U32 => "<u4",
        DType::I64 => "<i8",
        DType::U64 => "<u8",
        DType::Bool => "|b1",
    };
    let dims: String = tensor.shape().iter().map(|d| format!("{d},")).collect();
    let mut text = format!("{{'descr': '{code}', 'fortran_order': False, 'shape': ({dims}), }}");
    // The whole header is a multiple of 64 bytes and ends in a line feed.
    let padding = (64 - (10 + text.len() + 1) % 64) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.into_bytes());
    bytes
}

/// One `.npy` array. Source: numpy's format specification, versions 1.0 to 3.0.
pub fn parse(bytes: &[u8]) -> std::result::Result<Tensor, String> {
    let major = match bytes.get(..8) {
        Some([0x93, b'N', b'U', b'M', b'P', b'Y', major, _]) => *major,
        _ => return Err("not an npy array".into()),
    };
    let (at, len) = match (major, bytes.get(8..12)) {
        (1, Some(b)) => (10, u16::from_le_bytes([b[0], b[1]]) as usize),
        (2 | 3, Some(b)) => (12, u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize),
        _ => return Err(format!("npy version {major} is not known")),
    };
    let text = bytes.get(at..).and_then(|b| b.get(..len)).ok_or("the header is cut off")?;
    let text = std::str::from_utf8(text).map_err(|_| "the header is not text")?;
    let (dtype, shape, fortran) = describe(text)?;
    let data = &bytes[at + len..];
    let order: Shape = if fortran { shape.iter().rev().copied().collect() } else { shape.clone() };
    let need = size_bytes(dtype, &order).map_err(|e| e.to_string())?;
    let data = data.get(..need).ok_or_else(|| format!("{need} bytes are declared, {} are there", data.len()))?;
    let tensor = Tensor::from_raw(dtype, order, data).map_err(|e| e.to_string())?;
    Ok(if fortran && shape.rank() > 1 { reversed(&tensor, shape).map_err(|e| e.to_string())? } else { tensor })
}

fn describe(header: &str) -> std::result::Result<(DType, Shape, bool), String> {
    let after = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    let descr =
        after("descr").and_then(|r| r.strip_prefix('\'')).and_then(|r| r.split_once('\'')).ok_or("no type in the header")?.0;
    let dtype = match descr.trim_start_matches(['<', '|', '=']) {
        "f4" => DType::F32,
        "f8" => DType::F64,
        "f2" => DType::F16,
        "i1" => DType::I8,
        "u1" => DType::U8,
        "i2" => DType::I16,
        "u2" => DType::U16,
        "i4" => DType::I32,
        "u4" => DType::U32,
        "i8" => DType::I64,
        "u8" => DType::U64,
        "b1" => DType::Bool,
        other => return Err(format!("type {other} is not supported")),
    };
    let fortran = after("fortran_order").is_some_and(|r| r.starts_with("True"));
    let dims =
        after("shape").and_then(|r| r.strip_prefix('(')).and_then(|r| r.split_once(')')).ok_or("no shape in the header")?.0;
    let dims = dims.split(',').map(str::trim).filter(|d| !d.is_empty());
    let shape = dims.map(|d| d.parse::<usize>().map_err(|_| format!("size {d:?}"))).collect::<std::result::Result<Shape, _>>()?;
    Ok((dtype, shape, fortran))
}

/// Column-major elements (`tensor` has the axes reversed) in row-major order.
fn reversed(tensor: &Tensor, shape: Shape) -> Result<Tensor> {
    let size = tensor.dtype().size_bytes();
    let mut out = vec![0u8; tensor.bytes().len()];
    for (i, element) in out.chunks_exact_mut(size).enumerate() {
        let (mut rest, mut from, mut stride) = (i, 0, 1);
        let mut index = vec![0; shape.rank()];
        for axis in (0..shape.rank()).rev() {
            index[axis] = rest % shape[axis];
            rest /= shape[axis];
        }
        for axis in 0..shape.rank() {
            from += index[axis] * stride;
            stride *= shape[axis];
        }
        element.copy_from_slice(&tensor.bytes()[from * size..(from + 1) * size]);
    }
    Tensor::from_raw(tensor.dtype(), shape, &out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let bf = Tensor::from_raw(DType::BF16, Shape::from([1]), &[0x80, 0x3f]).unwrap();
        let all = [("a/b:0", Tensor::new([2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap()), ("s", Tensor::scalar(7i64)), ("h", bf)];
        write(path.path(), all.iter().map(|(n, t)| (*n, t))).unwrap();
        let back = read(path.path()).unwrap();
        assert_eq!(back, all.map(|(n, t)| (n.to_string(), t)));
    }

    #[test]
    fn headers_that_lie_are_errors() {
        let good = Tensor::vector(&[1f32, 2.0]);
        let mut bytes = header(&good);
        bytes.extend(good.bytes());
        assert_eq!(parse(&bytes).unwrap(), good);
        assert!(parse(&bytes[..bytes.len() - 1]).unwrap_err().contains("declared"));
        for n in 0..bytes.len() {
            let _ = parse(&bytes[..n]);
        }
        let huge = String::from_utf8_lossy(&bytes[10..]).replace("(2,)", "(9999999999,9999999999,)");
        assert!(describe(&huge).is_ok());
        let fortran = b"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((fortran.len() as u16).to_le_bytes());
        bytes.extend(fortran);
        bytes.extend(bytemuck::cast_slice(&[1f32, 3.0, 2.0, 4.0]));
        assert_eq!(parse(&bytes).unwrap(), Tensor::new([2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap());
    }
}
