#!/usr/bin/env python3
"""Exact search beside faiss IndexFlat, by turns on the same vectors: search-peers.py HALFBYTE [ROWS] [DIM] [ROUNDS] [--vectors NPZ].

Prints a line for each storage and number of queries: microseconds of both (the best round's median, of faiss also the better of its two ways), and how many times faster halfbyte is.
Without faiss it says so and ends well: peers are optional.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time


def faiss_us(index, queries, count, k, seconds=1.0):
    """Median microseconds of a search of `count` queries."""
    times, turn, end = [], 0, time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        first = turn * count % (len(queries) - count + 1)
        start = time.perf_counter()
        index.search(queries[first:first + count], k)
        times.append((time.perf_counter() - start) * 1e6)
        turn += 1
    return sorted(times[1:])[len(times[1:]) // 2]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("halfbyte")
    parser.add_argument("rows", nargs="?", type=int, default=100_000)
    parser.add_argument("dim", nargs="?", type=int, default=384)
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    parser.add_argument("--vectors", help="arrays vectors and queries; random ones of length 1 when left out")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    try:
        import faiss
        import numpy
    except ImportError as why:
        print(f"SKIP peers: {why}")
        return
    faiss.omp_set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = args.vectors
        if not path:
            random = numpy.random.default_rng(1)
            made = [random.standard_normal((n, args.dim), numpy.float32) for n in (args.rows, 256)]
            vectors, queries = [v / numpy.linalg.norm(v, axis=1, keepdims=True) for v in made]
            path = os.path.join(folder, "vectors.npz")
            numpy.savez(path, vectors=vectors, queries=queries)
        arrays = numpy.load(path)
        vectors, queries = (numpy.ascontiguousarray(arrays[n], numpy.float32) for n in ("vectors", "queries"))
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        counts, k = [1, 8, 64], 10
        peer, ours = {}, {}
        default = faiss.cvar.distance_compute_blas_threshold
        for _ in range(args.rounds):
            # By its own loops, and by a matrix product, which it takes from so many queries on.
            for threshold in [20, default]:
                faiss.cvar.distance_compute_blas_threshold = threshold
                for count in counts:
                    peer[count] = min(peer.get(count, 1e12), faiss_us(index, queries, count, k))
            command = [args.halfbyte, "bench", "search", "--vectors", path, "--neighbours", str(k), "--seconds", "1", "--json",
                       "--device", "cpu", "--threads", str(args.threads)]
            for line in json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout):
                place = (line["storage"], line["queries"])
                before = ours.get(place, (1e12, 0))[0]
                ours[place] = (min(before, line["median_us"]), line["recall"])
    print(f"{len(vectors)} x {vectors.shape[1]}, k = {k}, {args.threads} threads; faiss {faiss.__version__} {faiss.get_compile_options().strip()}")
    print("storage\tqueries\tfaiss us\thalfbyte us\tfaster\trecall")
    for (storage, count), (us, recall) in sorted(ours.items()):
        print(f"{storage}\t{count}\t{peer[count]:.0f}\t{us:.0f}\t{peer[count] / us:.2f}\t{recall:.4f}")


if __name__ == "__main__":
    sys.exit(main())
