#!/usr/bin/env python3
"""Packs the corpus of each fuzz target into one file, and unpacks it for the fuzzer.

    fuzz/corpus.py unpack [TARGET...]    corpus/TARGET.txt to the folder corpus/TARGET, for cargo fuzz
    fuzz/corpus.py pack [TARGET...]      the folder corpus/TARGET back to corpus/TARGET.txt

Without a target: all of them. A file has one input a line, in the form of Rust's `escape_ascii`, which is how a failing
input is printed. The lines are sorted and each is there once, so the same inputs always make the same file.
"""

import hashlib
import pathlib
import re
import sys

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"
TARGETS = ["chunked", "connection", "head", "proxy", "response", "uwsgi"]

NAMED = {"\\t": b"\t", "\\r": b"\r", "\\n": b"\n", "\\'": b"'", '\\"': b'"', "\\\\": b"\\"}
ESCAPES = {value[0]: name for name, value in NAMED.items()}
PART = re.compile(r"""\\x[0-9a-f]{2}|\\[trn'"\\]|[ !#-&(-\[\]-~]""")


def main() -> None:
    commands = {"unpack": unpack, "pack": pack}
    command, targets = sys.argv[1:2], sys.argv[2:] or TARGETS
    if not command or command[0] not in commands or not set(targets) <= set(TARGETS):
        sys.exit(__doc__)
    for target in targets:
        commands[command[0]](target)


def unpack(target: str) -> None:
    folder = CORPUS / target
    # The names are those that libFuzzer gives.
    inputs = {hashlib.sha1(data, usedforsecurity=False).hexdigest(): data for data in read(target)}
    folder.mkdir(exist_ok=True)
    found = {path.name for path in folder.iterdir()} - inputs.keys()
    if found:
        sys.exit(f"corpus: {folder} has {len(found)} inputs that the file has not: pack them, or remove the folder")
    for name, data in inputs.items():
        (folder / name).write_bytes(data)
    print(f"{folder}: {len(inputs)} inputs")


def pack(target: str) -> None:
    folder = CORPUS / target
    if not folder.is_dir():
        sys.exit(f"corpus: {folder} is missing; `fuzz/corpus.py unpack {target}` makes it")
    inputs = [path.read_bytes() for path in folder.iterdir()]
    lines = sorted({escaped(data) for data in inputs})
    packed(target).write_text("".join(f"{line}\n" for line in lines), encoding="ascii", newline="\n")
    print(f"{packed(target)}: {len(inputs)} inputs")


def packed(target: str) -> pathlib.Path:
    return CORPUS / f"{target}.txt"


def read(target: str) -> list[bytes]:
    lines = packed(target).read_text(encoding="ascii").splitlines()
    return [unescaped(line, f"{packed(target)}:{number}") for number, line in enumerate(lines, 1)]


def escaped(data: bytes) -> str:
    return "".join(ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in data)


def unescaped(line: str, place: str) -> bytes:
    parts = PART.findall(line)
    if sum(map(len, parts)) != len(line):
        sys.exit(f"corpus: {place} is not in the form of escape_ascii")
    return b"".join(NAMED.get(part) or (bytes.fromhex(part[2:]) if len(part) > 1 else part.encode()) for part in parts)


if __name__ == "__main__":
    main()
