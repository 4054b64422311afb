//! A graph as text for people.

use std::fmt::Write;

use super::{Attr, Dim, Graph, Node, Port, ValueId};

/// Longer lists are cut.
const MAX_LIST: usize = 8;

/// One line for each input, node and output; subgraphs are indented.
pub fn dump(graph: &Graph) -> String {
    let mut text = String::new();
    write_graph(&mut text, graph, 0);
    text
}

fn write_graph(text: &mut String, graph: &Graph, depth: usize) {
    let indent = "  ".repeat(depth);
    let mut line = |words: String| writeln!(text, "{indent}{words}").unwrap_or_default();
    line(format!("graph {}", graph.name));
    for (kind, ports) in [("input", &graph.inputs), ("optional", &graph.optional_inputs), ("output", &graph.outputs)] {
        ports.iter().for_each(|p| line(format!("{kind} {}", port(graph, p))));
    }
    graph.captures.iter().for_each(|(_, own)| line(format!("captured {}", value(graph, Some(*own)))));
    for node in &graph.nodes {
        write_node(text, graph, node, depth);
    }
}

fn write_node(text: &mut String, graph: &Graph, node: &Node, depth: usize) {
    let list = |values: &[Option<ValueId>]| values.iter().map(|&v| value(graph, v)).collect::<Vec<_>>().join(", ");
    let attrs: String = node.attrs.iter().map(|(name, a)| format!(" {name}={}", attr(a))).collect();
    let (outputs, inputs, op) = (list(&node.outputs), list(&node.inputs), node.full_op());
    writeln!(text, "{}{outputs} = {op}({inputs}){attrs}", "  ".repeat(depth)).unwrap_or_default();
    for attr in node.attrs.values() {
        if let Attr::Graph(inner) = attr {
            write_graph(text, inner, depth + 1);
        }
    }
}

/// A value's name; constants with their type.
fn value(graph: &Graph, id: Option<ValueId>) -> String {
    let Some(id) = id else { return "-".into() };
    let value = &graph.values[id.0];
    match &value.constant {
        Some(t) => format!("{}[{} {}]", value.name, t.dtype(), t.shape()),
        None => value.name.clone(),
    }
}

fn port(graph: &Graph, port: &Port) -> String {
    let dim = |d: &Dim| match d {
        Dim::Known(n) => n.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Any => "?".into(),
    };
    let dtype = port.dtype.map_or("?".to_string(), |d| d.to_string());
    let dims = port.dims.as_ref().map_or("any shape".into(), |d| d.iter().map(dim).collect::<Vec<_>>().join("x"));
    format!("{}: {dtype} {dims}", graph.values[port.value.0].name)
}

fn attr(attr: &Attr) -> String {
    fn list<T: std::fmt::Debug>(all: &[T]) -> String {
        let cut = if all.len() > MAX_LIST { ", ..." } else { "" };
        let shown: Vec<String> = all.iter().take(MAX_LIST).map(|v| format!("{v:?}")).collect();
        format!("[{}{cut}]", shown.join(", "))
    }
    match attr {
        Attr::Int(v) => v.to_string(),
        Attr::Float(v) => v.to_string(),
        Attr::Str(v) => format!("{v:?}"),
        Attr::Ints(v) => list(v),
        Attr::Floats(v) => list(v),
        Attr::Strs(v) => list(v),
        Attr::Tensor(t) => format!("[{} {}]", t.dtype(), t.shape()),
        Attr::Graph(g) => format!("graph of {} nodes", g.nodes.len()),
        Attr::Formula(f) => format!("{f:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DType, Tensor};

    #[test]
    fn a_line_for_each_node() {
        let mut g = Graph { name: "g".into(), ..Graph::default() };
        let (x, y) = (g.add_value("x", None), g.add_value("y", None));
        let w = g.add_value("w", Some(Tensor::vector(&[1.0f32, 2.0])));
        let dims = Some(vec![Dim::Named("n".into()), Dim::Known(2), Dim::Any]);
        g.inputs.push(Port { value: x, dtype: Some(DType::F32), dims });
        g.outputs.push(Port { value: y, dtype: None, dims: None });
        let mut node = Node::new("com.microsoft", "Mystery", 1, vec![Some(x), None, Some(w)], vec![Some(y)]);
        node.attrs.insert("axes".into(), Attr::Ints((0..9).collect()));
        g.nodes.push(node);
        let want = "graph g\ninput x: f32 nx2x?\noutput y: ? any shape\n\
                    y = com.microsoft:Mystery(x, -, w[f32 2]) axes=[0, 1, 2, 3, 4, 5, 6, 7, ...]\n";
        assert_eq!(dump(&g), want);
    }
}
