"""KServe's own clients talk to a server that runs: serve_kserve.py HTTP GRPC CASES MODEL..., where CASES has MODEL.in.npz and MODEL.out.npz."""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

HTTP, GRPC, CASES, *MODELS = sys.argv[1:]
DATATYPES = {"float32": "FP32", "int64": "INT64"}


def request(name, arrays, binary):
    made = []
    for tensor, array in arrays.items():
        made.append(InferInput(tensor, list(array.shape), DATATYPES[array.dtype.name]))
        made[-1].set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model_name=name, infer_inputs=made, request_id="nine")


def agree(name, response, want):
    assert response.id == "nine" and response.model_name == name, response
    for output, array in want.items():
        got = next(o for o in response.outputs if o.name == output).as_numpy()
        error = np.abs(got.reshape(array.shape) - array).max(initial=0)
        assert error <= 1e-3 * max(np.abs(array).max(initial=0), 1e-30), (name, output, error)


async def main():
    base = f"http://{HTTP}"
    rest, grpc = InferenceRESTClient(RESTConfig(protocol="v2")), InferenceGRPCClient(GRPC)
    assert await rest.is_server_ready(base) and await rest.is_server_live(base)
    assert await grpc.is_server_ready() and await grpc.is_server_live()
    for name in MODELS:
        given, want = [dict(np.load(f"{CASES}/{name}.{what}.npz")) for what in ("in", "out")]
        assert await rest.is_model_ready(base, name) and await grpc.is_model_ready(name)
        for binary in (True, False):
            agree(name, await rest.infer(base, request(name, given, binary), model_name=name), want)
        agree(name, await grpc.infer(request(name, given, True)), want)
        print(name, "answers KServe's clients over HTTP and gRPC")
    for work in (rest.infer(base, request("absent", given, True), model_name="absent"), grpc.infer(request("absent", given, True))):
        try:
            await work
        except Exception as error:
            assert "absent" in str(error) or "404" in str(error), error
        else:
            raise SystemExit("answered for a model that is not there")
    await grpc.close()
    await rest.close()
    print("DONE")


asyncio.run(main())
