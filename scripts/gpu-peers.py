#!/usr/bin/env python3
"""What ONNX Runtime makes of a model on this machine: peers.py MODEL IN.npz OUT.npz. One JSON line for each way of running it.

Without onnxruntime or numpy it says so and ends well: peers are optional.
"""
import json
import sys
import time


def measure(session, inputs, seconds=2.0):
    """Median microseconds of a run, after ten to warm up."""
    for _ in range(10):
        outputs = session.run(None, inputs)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, inputs)
        times.append((time.perf_counter() - start) * 1e6)
    return outputs, sorted(times)[len(times) // 2]


def main(model, given, wanted):
    try:
        import numpy
        import onnxruntime
    except ImportError as why:
        print(f"SKIP peers: {why}")
        return
    inputs, wanted = dict(numpy.load(given)), dict(numpy.load(wanted))
    for provider in onnxruntime.get_available_providers():
        try:
            session = onnxruntime.InferenceSession(model, providers=[provider])
            names = [o.name for o in session.get_outputs()]
            outputs, median_us = measure(session, inputs)
        except Exception as why:  # one provider's failure is a finding, and no reason to leave the others out
            print(json.dumps({"model": model, "provider": provider, "error": str(why)[:500]}))
            continue
        error = max(float(numpy.abs(a - wanted[n]).max()) for n, a in zip(names, outputs) if n in wanted)
        version = onnxruntime.__version__
        print(json.dumps({"model": model, "provider": provider, "version": version, "median_us": median_us, "error": error}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
