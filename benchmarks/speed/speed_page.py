"""docs/speed.md and its plot, made from benchmarks/results/speed/ and from nothing else."""

from __future__ import annotations

from typing import Any

from benchmarks.common.pages import made_by, table
from benchmarks.common.places import DOCS

Rows = dict[str, dict[str, Any]]
CURVES = {"K": "classes", "M": "images", "D": "values per image", "threads": "threads"}


def write(rows: Rows) -> None:
    if not rows:
        raise SystemExit("no results to make docs/speed.md from: run benchmarks.speed.verdicts first")
    plotted = plot(rows)
    (DOCS / "speed.md").write_text(page(rows, plotted))


def page(rows: Rows, plotted: bool) -> str:
    lines = [
        "# Speed",
        "",
        made_by("speed/verdicts.py", rows.values())
        + ". Each row has its number of threads. Ratios are of processor seconds, summed over threads and measured in "
        "one process, since the machine may have been doing other work.",
    ]
    for section in (verdicts, sizes, baselines, steps, engine, ops):
        lines += section(rows)
    lines += curves(rows, plotted)
    return "\n".join(lines) + "\n"


def verdicts(rows: Rows) -> list[str]:
    head = (
        "row",
        "images",
        "threads",
        "seconds",
        "processor s",
        "epoch, processor s",
        "timed on",
        "ratio",
        "forward",
        "backward",
        "target named",
        "peak GiB",
    )
    cells = []
    for name in ("detect_resnet9", "detect_resnet9_bfloat16", "detect_resnet18", "detect_resnet18_bfloat16", "screen"):
        if row := rows.get(name):
            epoch = row.get("epoch", {}).get("cpu_seconds")
            cells.append(
                [
                    row["name"],
                    row["images"],
                    row["threads"],
                    seconds(row["seconds"]),
                    seconds(row["cpu_seconds"]),
                    "" if epoch is None else seconds(epoch),
                    row.get("epoch_timed_on", ""),
                    f"{row['ratio']:.3f}" if epoch else against_epoch(rows, row),
                    row.get("forward_images", 0),
                    row.get("backward_images", 0),
                    " ".join(map(str, row["targets"])) or "none",
                    gib(row),
                ]
            )
    return [
        "",
        "## A whole verdict against one training epoch",
        "",
        "CIFAR-10 with a planted 3/255 chessboard. The epoch is one of the same network on the same set, in the same "
        "precision, timed on the number of images in the table. The network that it leaves is the one that is judged.",
        "",
        *table(head, cells),
    ]


def sizes(rows: Rows) -> list[str]:
    found = [row for name, row in rows.items() if name.startswith("size_")]
    if not found:
        return []
    head = ("row", "images", "classes", "threads", "seconds", "processor s", "ns a value", "named", "peak GiB")
    cells = (
        [
            row["name"],
            row["images"],
            row["classes"],
            row["threads"],
            seconds(row["seconds"]),
            seconds(row["cpu_seconds"]),
            f"{1e9 * row['per_value']:.1f}",
            " ".join(map(str, row["named"])) or "none",
            gib(row),
        ]
        for row in sorted(found, key=lambda row: (row["size"], row["images"], row["classes"]))
    )
    lines = [
        "",
        "## `screen` at any size",
        "",
        "Photographs as they are, nothing planted. Memory is that of the process, with the images where they are "
        "given as an array. A value is one channel of one pixel.",
        "",
        *table(head, cells),
    ]
    if row := rows.get("size_224_folder"):
        lines += [
            "",
            f"Decoding the folder's files once by Pillow takes {seconds(row['decoding'])} processor seconds in the "
            f"same run: `screen` takes {row['ratio']:.1f} times as long, decoding included.",
        ]
    return lines


def against_epoch(rows: Rows, row: dict[str, Any]) -> str:
    """Of a screen, against the epoch of ResNet-18 on the same set, measured in another process."""
    other = rows.get("detect_resnet18")
    return f"{row['cpu_seconds'] / other['epoch']['cpu_seconds']:.3f} (of resnet18's)" if other else ""


def baselines(rows: Rows) -> list[str]:
    if not (row := rows.get("baselines")):
        return []
    head = (
        "detector",
        "steps measured",
        "steps allowed",
        "images, forward and backward",
        "processor s",
        "times bre's",
        "outliers",
    )
    cells = (
        [
            name if name != "bre" else "bre, model's view",
            each.get("steps", "all"),
            each.get("all_steps", ""),
            f"{each['images']:.0f}",
            seconds(each["cpu_seconds"]),
            f"{each['ratio']:.1f}",
            " ".join(map(str, each["targets"])) or "none" if "targets" in each else "not run",
        ]
        for name in ("bre", "Neural Cleanse", "pairwise pattern estimation")
        for each in (row[name],)
    )
    return [
        "",
        "## The model's view against published detectors",
        "",
        "ResNet9 (width 16) that has learned a 3/255 chessboard, 2 000 of its 50 000 images; K = 10, the target "
        f"is class {row['bre']['planted']}. Neural Cleanse's time is extrapolated from the steps measured to all that "
        "its published settings allow. It may stop earlier, and its verdict is not known. The others ran to their "
        "end; pairwise estimation stops early on a pair that reaches its goal.",
        "",
        *table(head, cells),
        "",
        f"Peak memory of the process that ran all three: {gib(row)} GiB; {row['threads']} threads.",
    ]


def steps(rows: Rows) -> list[str]:
    found = [rows[name] for name in ("step_resnet9", "step_resnet18") if name in rows]
    if not found:
        return []
    head = (
        "network",
        "rows",
        "threads",
        "step, processor ms",
        "bare ms",
        "ratio",
        "bare, batch norm not folded, ms",
        "peak GiB",
    )
    cells = (
        [
            row["name"].split()[1],
            row["rows"],
            row["threads"],
            f"{1e3 * row['step']:.1f}",
            f"{1e3 * row['bare']:.1f}",
            f"{row['ratio']:.3f}",
            f"{1e3 * row['not_folded']:.1f}",
            gib(row),
        ]
        for row in found
    )
    return [
        "",
        "## A step of the patterns",
        "",
        "Against the bare forward pass and input gradient of the same batch, through the same network, frozen and with "
        "batch norms folded.",
        "",
        *table(head, cells),
    ]


def engine(rows: Rows) -> list[str]:
    found = [rows[name] for name in ("engine_resnet9", "engine_resnet18") if name in rows]
    if not found:
        return []
    cells = (
        [
            row["name"].split()[1],
            row["rows"],
            row["threads"],
            what,
            f"{1e3 * time:.1f}",
            f"{time / row['times']['as it came']:.2f}",
        ]
        for row in found
        for what, time in row["times"].items()
    )
    waits = ", ".join(f"{row['name'].split()[1]} {row['compile_seconds']:.0f} s" for row in found)
    return [
        "",
        "## The frozen network",
        "",
        "Forward pass and input gradient, each change on top of the one before. bre uses all but compilation, whose "
        "time would have to be recovered within one verdict.",
        "",
        *table(("network", "rows", "threads", "what", "processor ms", "of the first"), cells),
        "",
        f"The first call of the compiled network took: {waits}.",
    ]


def ops(rows: Rows) -> list[str]:
    if not (row := rows.get("ops")):
        return []
    figures = ("GB/s", "of copy", "G/s", "of product", "times eager")
    cells = (
        [op["op"].removeprefix("test_"), f"{1e3 * op['seconds']:.2f}", *(figure(op.get(key)) for key in figures)]
        for op in row["ops"]
    )
    return [
        "",
        "## The ops on the CPU",
        "",
        "Each answer was asserted before it was timed. Shares are of a large copy's bytes per second and of a "
        f"large float32 product's operations per second, run in turn with the op, {row['threads']} threads. "
        "Bytes are what an op must read and write, from arrays larger than the caches. `project` with many "
        "templates and 16-bit results are bound by arithmetic. The last column compares `moments` with float32 BLAS, "
        "conversion included, and the other ops with the plain-torch composition.",
        "",
        *table(("op", "ms", *figures), cells),
    ]


def curves(rows: Rows, plotted: bool) -> list[str]:
    points = [row for row in rows.values() if "axis" in row]
    if not points:
        return []
    lines = [
        "",
        "## Scaling",
        "",
        "ResNet9 (width 16) as initialised; 20 000 images, K = 10 and D = 3072, except for the quantity that varies. "
        "With more classes the total number of images stays, so a class has fewer.",
        "",
    ]
    if plotted:
        lines += ["![Seconds of the model's view and of a screen over K, M, D and threads](speed.svg)", ""]
    head = (
        "varied",
        "value",
        "threads",
        "model's view, processor s",
        "forward",
        "backward",
        "screen, processor s",
        "peak GiB",
    )
    cells = (
        [
            row["axis"],
            row["value"],
            row["threads"],
            seconds(row["model_view"]["cpu_seconds"]),
            row["model_view"]["forward_images"],
            row["model_view"]["backward_images"],
            seconds(row["screen"]["cpu_seconds"]),
            gib(row),
        ]
        for row in sorted(points, key=lambda r: (list(CURVES).index(r["axis"]), r["value"]))
    )
    return [*lines, *table(head, cells)]


def plot(rows: Rows) -> bool:
    """docs/speed.svg; False where there is nothing to plot, or no matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return (DOCS / "speed.svg").exists()
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bre"  # the same file from the same results
    from matplotlib import pyplot

    points = [row for row in rows.values() if "axis" in row]
    if not points:
        return False
    figure, axes = pyplot.subplots(1, len(CURVES), figsize=(12, 3), layout="constrained")
    for axis, (key, label) in zip(axes, CURVES.items(), strict=True):
        curve = sorted((r for r in points if r["axis"] == key), key=lambda r: r["value"])
        clock = "seconds" if key == "threads" else "cpu_seconds"
        for part, name in (("model_view", "model's view"), ("screen", "screen")):
            axis.plot([r["value"] for r in curve], [r[part][clock] for r in curve], "o-", label=name)
        axis.set(xlabel=label, ylabel="seconds" if key == "threads" else "processor seconds", ylim=(0, None))
    axes[0].legend()
    figure.savefig(DOCS / "speed.svg", metadata={"Date": None})
    return True


def seconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def gib(row: dict[str, Any]) -> str:
    return f"{row['peak_gib']:.1f}"


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
