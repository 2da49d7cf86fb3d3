"""docs/scale.md, made from the rows of benchmarks/scale/scale.py and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.common.pages import made_by, percent, table

Row = dict[str, Any]
NONE = "not measured"


def page(rows: list[Row]) -> str:
    by_name = {row["name"]: row for row in rows}
    made = [made_by("scale/scale.py", rows) + ". Other work ran on the machine meanwhile."] if rows else ["No rows."]
    return (
        "\n".join(["# Scale", "", *made, "", *INTRODUCTION, "", *goals(by_name), "", *SEEN, "", *WORKED_OUT]).rstrip()
        + "\n"
    )


INTRODUCTION = (
    "A run can be killed and go on, be shared between processes and machines, and search classes of any size: see",
    "[recipes.md](recipes.md) for how. The table has what was measured of each goal, on two cores.",
)


def goals(rows: Mapping[str, Row]) -> list[str]:
    def said(words: Callable[[Row], str], name: str) -> str:
        return words(rows[name]) if name in rows else NONE

    found = [
        ["`screen` killed at random moments, resumed", said(kills, "killed screen")],
        ["`detect` killed at random moments, resumed", said(kills, "killed detect")],
        ["`sweep` of six rows killed at random moments, resumed", said(kills, "killed sweep")],
        ["1, 2 and 4 processes", said(processes, "processes")],
        ["a Ray cluster of two nodes, one killed in mid-run", said(ray, "ray")],
        ["1 281 167 images of 3 x 64 x 64, 1 000 classes, 300 poisoned", said(shards, "shards 1281167")],
        ["the same, 20 poisoned", said(shards, "shards 1281167 20")],
        ["a tenth: 128 117 images, 100 classes, 300 poisoned", said(shards, "shards 128117")],
        ["a hundredth: 12 812 images, 10 classes, 300 poisoned", said(shards, "shards 12812")],
        ["50 planted in a class of 100 000, 10 classes", said(planted, "planted 50 of 100000")],
        ["the same set without", said(planted, "clean 100000")],
        ["100 000 images of 3 x 224 x 224, 10 classes, 500 poisoned", said(shards, "shards 224 100000")],
        ["6 000 of the same, 30 poisoned", said(shards, "shards 224 6000")],
        ["shards from an S3 server, 2% of requests failing", said(s3, "s3")],
        ["`detect`, 64 x 64: the model's part, 100 classes", said(model, "model K 100")],
        ["`detect`, 64 x 64: the model's part, 1 000 classes", said(model, "model K 1000")],
        ["`sweep` over the victims at hand, killed twice", said(sweep, "sweep")],
        ["`screen` beside reading and decoding alone", beside(rows)],
    ]
    return table(["what", "found"], found)


def kills(row: Row) -> str:
    return (
        f"{row['same']} of {row['kills']} reports byte-identical ({row['while_running']} killed while running); "
        f"{row['repeated']} of {row['kept']} finished tasks done again"
    )


def processes(row: Row) -> str:
    each = [f"{jobs}: {'same' if of['same'] else 'other'} bytes, {of['seconds']} s" for jobs, of in row["jobs"].items()]
    return "; ".join(each) + " (a small set: starting processes takes most of it)"


def ray(row: Row) -> str:
    after = row["killed_after"][0] if row["killed_after"] else "no"
    return f"{'same' if row['same'] else 'other'} bytes; the node was killed after {after} of {row['tasks']} tasks"


def verdict(row: Row) -> str:
    named = ", ".join(map(str, row["named"])) or "none"
    recall = "" if row["recall"] is None else f", recall {percent(row['recall'])}, {row['lost']} clean images flagged"
    return f"called: {named}, p = {row['p_value']:.2g}{recall}"


def shards(row: Row) -> str:
    return f"{verdict(row)}; {row['seconds']} s, {row['cpu_seconds']} processor seconds, {row['peak_gib']} GiB"


def planted(row: Row) -> str:
    return f"{verdict(row)}; {row['cpu_seconds']} processor seconds, {row['peak_gib']} GiB with the images in memory"


def model(row: Row) -> str:
    return (
        f"{row['cpu_seconds']} processor seconds, {row['forward']} images forward, {row['backward']} backward, "
        f"{row['peak_gib']} GiB ({row['data_gib']} GiB of it the images)"
    )


def s3(row: Row) -> str:
    return (
        f"{row['images']} images of {row['classes']} classes: {'same' if row['same_bytes_as_from_disk'] else 'other'} "
        f"bytes as from disk; {row['failed']} of {row['requests']} requests failed; {row['bytes'] / 1e6:.0f} MB were "
        f"moved, the shards are {row['bytes_of_the_shards'] / 1e6:.0f} MB: what lies between the images of a class is "
        f"read too where that is quicker than another request; {row['seconds']:.0f} s, from disk "
        f"{row['seconds_from_disk_after_opening']:.0f} s"
    )


def sweep(row: Row) -> str:
    return (
        f"{row['rows']} rows, the first {row['images_of_each']} images of each set; {row['as_alone']} verdicts in "
        f"every byte as alone; {row['made_again']} of {row['kept_over_kills']} that were there were made again; "
        f"{row['seconds']:.0f} s"
    )


def beside(rows: Mapping[str, Row]) -> str:
    found = [row for name, row in rows.items() if name.startswith("shards")]
    if not found:
        return NONE
    return "; ".join(
        f"{row['images']} images: {row['cpu_seconds'] / row['read_seconds']:.1f} times ({row['read_seconds']} s read)"
        for row in found
    )


SEEN = (
    "A class of the set of 1 281 167 images is twelve photographs in about a hundred versions each: crops, mirrored,",
    "brighter, darker, with noise. An earlier version called two clean classes there too, by what versions of a few",
    "photographs have in common (grey ones in a class of coloured ones; players of compact discs on wood): its test of",
    "the largest class was too sure of itself where most of many classes lie at the statistic's floor, see",
    "[method.md](method.md#the-verdict). The set was screened again with the test as it is.",
)
WORKED_OUT = (
    "## What cannot be measured here",
    "",
    "Hundreds of machines and 10^9 images are worked out from what tasks read and return. D is the number of values in",
    "an image, K the number of classes, M that of images.",
    "",
    "| task | how many | reads | returns |",
    "|---|---|---|---|",
    "| tiles of the sample | 8 192 images altogether, whatever M | D bytes an image | 65 536 tiles a level: 12.6 MB at "
    "8 x 8 x 3, 25 MB at the coarsest level |",
    "| a class of up to 8 192 images | K | its images, and 2 048 others once a worker | 8 bytes an image searched, 4 "
    "bytes for its score |",
    "| a block of a larger class | one for each 1 057 (224 x 224) to 3 861 (32 x 32) images | its images | 24 bytes an "
    "image; 8 directions of up to 4 D bytes |",
    "| scores of a block | twice as many | its images; up to 192 directions of up to 4 D bytes | 16 bytes for each of "
    "some hundredths of the images, for each direction |",
    "| what several classes share | 1 | 16 384 images at the coarsest level | 12 KB and 8 bytes an image |",
    "| carriers of a class that is called | one for each | the class, 4 096 others, 200 of every class once a worker | "
    "17 bytes an image |",
    "| scores of a shard, if several classes share a pattern | M / 16 384 | its images | 4 bytes an image |",
    "",
    "Each worker gets the context once: the tiles above, some 40 MB at 32 x 32 or 64 x 64, and the name of the set,",
    "which it opens itself. What is reduced on one machine is 24 bytes an image: 24 GB for 10^9 images, and labels of",
    "8 GB. So the first bottleneck is the index, which is held by every process that opens the set; the second is",
    "the object store: all images are read once, those of larger classes three times, and decoding takes",
    "more processor time than searching at 64 x 64 and below. A class of 10^8 images gives 8 directions for each of",
    "26 000 blocks, of which 192 are scored: a pattern in fewer than about a hundredth of the blocks can then be lost.",
)
