"""NVIDIA's client talks to a server that runs: serve_clients.py HTTP GRPC CASES SCRATCH, where CASES is a folder of NAME.in.npz and
NAME.out.npz for the models served, and SCRATCH the folder they are served from."""

import json
import os
import shutil
import sys
import urllib.request

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

HTTP, GRPC, CASES, SCRATCH = sys.argv[1:5]


def agree(name, got, want):
    assert got is not None and got.shape == want.shape and got.dtype == want.dtype, (name, got, want)
    got, want = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    if "-q" in name or "int8" in name or "dynint" in name:
        cosine = got @ want / max(np.linalg.norm(got) * np.linalg.norm(want), 1e-30)
        assert cosine >= 0.99, (name, cosine)
    else:
        error = np.abs(got - want).max(initial=0) / max(np.abs(want).max(initial=0), 1e-30)
        assert error <= 1e-3, (name, error)


def refused(work, *words):
    try:
        work()
    except InferenceServerException as error:
        said = str(error)
        assert all(w in said for w in words), (said, words)
        return
    raise AssertionError(f"not refused: {words}")


def inputs(module, arrays, **how):
    made = []
    for name, array in arrays.items():
        tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, **how)
        made.append(tensor)
    return made


def model(name, http, grpc):
    given, want = [dict(np.load(f"{CASES}/{name}.{what}.npz")) for what in ("in", "out")]
    assert http.is_model_ready(name) and grpc.is_model_ready(name) and http.is_model_ready(name, "1")
    metadata = http.get_model_metadata(name)
    same = grpc.get_model_metadata(name, as_json=True)
    assert metadata["versions"] == ["1"] and [i["name"] for i in metadata["inputs"]] == [i["name"] for i in same["inputs"]]
    for tensor in metadata["inputs"]:
        array = given[tensor["name"]]
        assert tensor["datatype"] == np_to_triton_dtype(array.dtype), tensor
        assert all(d in (-1, n) for d, n in zip(tensor["shape"], array.shape)) and len(tensor["shape"]) == array.ndim, tensor
    config = grpc.get_model_config(name, as_json=True)["config"]
    assert [i["name"] for i in config["input"]] == [i["name"] for i in metadata["inputs"]], config
    assert config["output"][0]["data_type"] == http.get_model_config(name)["output"][0]["data_type"]

    runs = 0
    outputs = [http_client.InferRequestedOutput(o, binary_data=i % 2 == 0) for i, o in enumerate(want)]
    small = sum(a.size for a in given.values()) <= 200_000
    forms = [dict(binary_data=True)] + ([dict(binary_data=False)] if small else [])
    for form in forms:
        for asked in (None, outputs):
            result = http.infer(name, inputs(http_client, given, **form), outputs=asked, request_id="seven")
            assert result.get_response()["id"] == "seven" and result.get_response()["model_version"] == "1"
            for output, array in want.items():
                agree(name, result.as_numpy(output), array)
            runs += 1
    result = grpc.infer(name, inputs(grpc_client, given), model_version="1", request_id="eight")
    assert result.get_response().id == "eight"
    for output, array in want.items():
        agree(name, result.as_numpy(output), array)

    for statistics in (http.get_inference_statistics(name)["model_stats"][0], grpc.get_inference_statistics(name, as_json=True)["model_stats"][0]):
        assert int(statistics["inference_stats"]["success"]["count"]) == runs + 1, statistics
        assert int(statistics["inference_stats"]["compute_infer"]["ns"]) > 0 and int(statistics["execution_count"]) == runs + 1

    first = next(iter(given))
    for module, client in ((http_client, http), (grpc_client, grpc)):
        bad = inputs(module, given)
        bad[0] = module.InferInput("nobody", bad[0].shape(), bad[0].datatype())
        bad[0].set_data_from_numpy(given[first])
        refused(lambda: client.infer(name, bad), "input", first)
        refused(lambda: client.infer(name, inputs(module, {first: given[first].astype(np.complex64).real.astype(np.float64)})), first)
        refused(lambda: client.infer(name, inputs(module, given), outputs=[module.InferRequestedOutput("nothing")]), "nothing")
        refused(lambda: client.infer(name, inputs(module, given), model_version="7"), "7")
        refused(lambda: client.infer("absent", inputs(module, given)), "absent")


def stream(name, grpc):
    given, want = [dict(np.load(f"{CASES}/{name}.{what}.npz")) for what in ("in", "out")]
    answers = []
    grpc.start_stream(lambda result, error: answers.append((result, error)))
    for i in range(5):
        grpc.async_stream_infer(name if i != 2 else "absent", inputs(grpc_client, given), request_id=str(i))
    grpc.stop_stream()
    assert len(answers) == 5 and [error is not None for _, error in answers] == [False, False, True, False, False], answers
    for result, error in answers:
        if error is None:
            agree(name, result.as_numpy(next(iter(want))), next(iter(want.values())))


def repository(name, http, grpc):
    copied = f"{SCRATCH}/copy"
    for version in ("1", "3"):
        os.makedirs(f"{copied}/{version}")
        shutil.copy(f"{SCRATCH}/{name}.onnx", f"{copied}/{version}/model.onnx")
    with open(f"{SCRATCH}/broken.onnx", "wb") as file:
        file.write(b"no model")
    states = lambda index: {(m["name"], m["version"]): m.get("state", "") for m in index}
    before = states(http.get_model_repository_index())
    assert before[("copy", "3")] == "" and before[(name, "1")] == "READY", before
    assert not http.is_model_ready("copy")
    http.load_model("copy")
    assert http.is_model_ready("copy", "3") and grpc.is_model_ready("copy", "1")
    assert http.get_model_metadata("copy")["versions"] == ["1", "3"]
    given = dict(np.load(f"{CASES}/{name}.in.npz"))
    assert grpc.infer("copy", inputs(grpc_client, given)).get_response().model_version == "3"
    refused(lambda: grpc.load_model("broken"), "broken")
    index = states(grpc.get_model_repository_index(as_json=True)["models"])
    assert index[("broken", "1")] == "UNAVAILABLE" and index[("copy", "1")] == "READY", index
    refused(lambda: http.load_model("copy", config="{}"), "config")
    refused(lambda: http.load_model("../copy"), "copy")
    grpc.unload_model("copy")
    assert not grpc.is_model_ready("copy")
    refused(lambda: http.infer("copy", inputs(http_client, given)), "unloaded")
    shutil.rmtree(copied)
    refused(lambda: http.load_model("copy"), "copy")


def main():
    http = http_client.InferenceServerClient(HTTP, network_timeout=120, connection_timeout=120)
    grpc = grpc_client.InferenceServerClient(GRPC)
    assert http.is_server_live() and http.is_server_ready() and grpc.is_server_live() and grpc.is_server_ready()
    assert http.get_server_metadata()["name"] == "halfbyte" and "binary_tensor_data" in grpc.get_server_metadata().extensions
    names = sorted(f[: -len(".in.npz")] for f in os.listdir(CASES) if f.endswith(".in.npz"))
    for name in names:
        model(name, http, grpc)
        print(name, "answers alike over HTTP and gRPC")
    stream(names[0], grpc)
    repository(names[0], http, grpc)
    with urllib.request.urlopen(f"http://{HTTP}/metrics") as metrics:
        text = metrics.read().decode()
        assert f'halfbyte_serve_requests_total{{model="{names[0]}",version="1",stage="success"}}' in text, text
    request = urllib.request.Request(f"http://{HTTP}/v2/nowhere", headers={"x-request-id": "mine"})
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        assert error.code == 404 and error.headers["x-request-id"] == "mine" and json.load(error)["kind"] == "unknown"
    print("DONE", len(names), "models")


main()
