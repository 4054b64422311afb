"""Runs pairs of models in ONNX Runtime on the same inputs. A line of standard input: first.onnx, second.onnx, inputs.npz, between tabs.
Prints for each the largest difference of an output over the range of the first model's, or why there is none. Compared are answers of the
graphs as they stand, without ONNX Runtime's own fusions (they alone move some quantised models by 4 %); with them the second must run too."""

import sys

import numpy as np
import onnxruntime as ort

BASIC, ALL = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, ort.GraphOptimizationLevel.ORT_ENABLE_ALL


def run(path, inputs, level=BASIC):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    options.graph_optimization_level = level
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()} | {i.name for i in session.get_overridable_initializers()}
    return session.run(None, {n: v for n, v in inputs.items() if n in wanted})


def difference(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"{a.dtype}{a.shape} against {b.dtype}{b.shape}")
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))


for line in sys.stdin:
    first, second, path = line.rstrip("\n").split("\t")
    with np.load(path) as inputs:
        inputs = dict(inputs)
    try:
        run(second, inputs, ALL)
        print(max(difference(a, b) for a, b in zip(run(first, inputs), run(second, inputs), strict=True)))
    except Exception as why:  # whatever ONNX Runtime says
        print("failed:", str(why).replace("\n", " "))
