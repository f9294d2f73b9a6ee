"""Two functions timed in turns, for the programs of this folder."""

import time

import fastrnn

fastrnn.set_num_threads(1)


def ratio(original, ours, turns=15):
    """Print the times of the fastest turns and how many times faster the second is."""
    best = [float("inf"), float("inf")]
    for _ in range(turns):
        for k, run in enumerate((original, ours)):
            start = time.perf_counter()
            run()
            best[k] = min(best[k], time.perf_counter() - start)
    old, new = (1e3 * each for each in best)
    print(f"original {old:.3f} ms, fastrnn {new:.3f} ms: {old / new:.2f}x")
