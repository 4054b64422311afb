//! A batch in two parts, for when the whole has no room.

use std::ops::Range;

use crate::base::{Tensor, TensorView};
use crate::error::{Error, Result};
use crate::graph::{Dim, Graph, Port};
use crate::session::Outputs;

/// Items of the batch: the size of the dimension that has one name and is the first, and no other, of every input and output. `None` where
/// the graph names none, or a single item is given.
pub(crate) fn items(graph: &Graph, inputs: &[Option<TensorView>]) -> Option<usize> {
    let given = graph.inputs.iter().chain(&graph.optional_inputs).zip(inputs).filter_map(|(p, v)| Some((p, v.as_ref()?)));
    let given: Vec<(&Port, &TensorView)> = given.collect();
    let batch = graph.inputs.first()?.dims.as_ref()?.first().filter(|dim| matches!(dim, Dim::Named(_)))?;
    let leads = |port: &Port| {
        let rest = |dims: &Vec<Dim>| dims.split_first().is_some_and(|(first, rest)| first == batch && !rest.contains(batch));
        port.dims.as_ref().is_some_and(rest)
    };
    let items = *given.first()?.1.shape.first()?;
    let together = given.iter().all(|(port, view)| leads(port) && view.shape.first() == Some(&items));
    (items > 1 && together && graph.outputs.iter().all(leads)).then_some(items)
}

/// These items of an input.
pub(crate) fn part<'a>(view: &TensorView<'a>, items: &Range<usize>) -> TensorView<'a> {
    let each = view.bytes.len() / view.shape[0];
    let mut shape = view.shape.clone();
    shape[0] = items.len();
    TensorView::new(view.dtype, shape, &view.bytes[items.start * each..items.end * each])
}

/// The outputs of both parts behind each other. Errors where they are not of so many items, or of different shapes.
pub(crate) fn join(parts: [(Outputs, usize); 2]) -> Result<Outputs> {
    let [(first, a), (second, b)] = parts;
    let joined = first.named.into_iter().zip(second.named).map(|((name, x), (_, y))| {
        let (sx, sy) = (x.shape(), y.shape());
        if sx.first() != Some(&a) || sy.first() != Some(&b) || sx[1..] != sy[1..] {
            let why = format!("output {name} of {a} and {b} items has shapes {sx} and {sy}: the batch cannot be split");
            return Err(Error::BadInput(why));
        }
        let mut shape = sx.clone();
        shape[0] = a + b;
        Ok((name, Tensor::from_raw(x.dtype(), shape, &[x.bytes(), y.bytes()].concat())?))
    });
    Ok(Outputs { named: joined.collect::<Result<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::DType;

    fn port(graph: &mut Graph, dims: &[Dim]) -> Port {
        let value = graph.add_value("v", None);
        Port { value, dtype: Some(DType::F32), dims: Some(dims.to_vec()) }
    }

    #[test]
    fn a_batch_is_one_name_that_leads_everything_and_stands_nowhere_else() {
        let [n, m, four] = [Dim::Named("n".into()), Dim::Named("m".into()), Dim::Known(4)];
        let x = [0f32; 12];
        let x = [Some(TensorView::of([3, 4], &x))];
        let of = |input: &[Dim], output: &[Dim]| {
            let mut graph = Graph::default();
            graph.inputs = vec![port(&mut graph, input)];
            graph.outputs = vec![port(&mut graph, output)];
            items(&graph, &x)
        };
        assert_eq!(of(&[n.clone(), four.clone()], std::slice::from_ref(&n)), Some(3));
        assert_eq!(of(&[n.clone(), four.clone()], &[n.clone(), n.clone()]), None, "each item with each other");
        assert_eq!(of(&[n.clone(), four.clone()], &[m]), None);
        assert_eq!(of(&[n, four.clone()], &[]), None, "one answer for all");
        assert_eq!(of(&[four.clone(), four.clone()], &[four]), None);
    }

    #[test]
    fn parts_are_joined_in_order_where_they_fit() {
        let outputs =
            |shape: [usize; 2], values: &[f32]| Outputs { named: vec![("y".into(), Tensor::new(shape, values).unwrap())] };
        let joined = join([(outputs([1, 2], &[1.0, 2.0]), 1), (outputs([2, 2], &[3.0, 4.0, 5.0, 6.0]), 2)]).unwrap();
        assert_eq!(joined.tensor("y").unwrap().to_f64(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(join([(outputs([1, 2], &[0.0; 2]), 1), (outputs([2, 3], &[0.0; 6]), 2)]).is_err());
        assert!(join([(outputs([1, 2], &[0.0; 2]), 2), (outputs([1, 2], &[0.0; 2]), 1)]).is_err());
    }
}
