"""Why the server in this package cannot be loaded, in a sentence that says what to do.

Imported only after the import has failed, by whatever Python that was: it must run on every version, PyPy too.
"""

import os
import re
import sys
import sysconfig

CURE = "install it again with this interpreter: {} -m pip install --force-reinstall --no-cache-dir monoceros"


def explain(error: ImportError) -> str:
    """The sentence for an ImportError of the extension module."""
    folder = os.path.dirname(os.path.abspath(__file__))
    present = sorted(name for name in os.listdir(folder) if name.startswith("_monoceros.") and name.endswith(".so"))
    return f"monoceros cannot be loaded: {_reason(str(error), folder, present)}"


def _reason(said: str, folder: str, present: "list[str]") -> str:
    cure = CURE.format(sys.executable or "python")
    if sys.implementation.name != "cpython":
        return f"it needs CPython, and this is {sys.implementation.name}; make a virtual environment with CPython"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "this CPython is free-threaded, for which there is no wheel; take the ordinary build of the same version"
    if not present:
        return (
            f"{folder} holds no extension module; this is the source tree, or a copy that is not whole. "
            f"Start it from another folder, or {cure}"
        )
    wanted = sysconfig.get_config_var("EXT_SUFFIX") or ""
    if "_monoceros" + wanted not in present and "_monoceros.abi3.so" not in present:
        return f"{folder} is for {_tag(present[0])}, and this Python wants {_tag('_monoceros' + wanted)}; {cure}"
    glibc = re.search(r"version [`'](GLIBC_[0-9.]+)' not found", said)
    if glibc:
        return (
            f"this wheel was built for a newer system, with {glibc.group(1).replace('_', ' ')}; "
            "take a wheel whose name says an older manylinux, or build it here (docs/installing.md)"
        )
    if "failed to map segment" in said:
        return f"{folder} is on a file system that was mounted noexec; install it on another one"
    if "wrong ELF class" in said or "invalid ELF header" in said or "file too short" in said:
        return f"{os.path.join(folder, present[0])} is damaged, or for another machine; {cure}"
    # On musl the linker has no version of glibc to tell, and this is what it misses first.
    is_glibc = bool(os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else "")
    if "libgcc_s" in said and is_glibc:
        return f"a library of the system is missing ({said}); install it (Debian, Ubuntu: apt-get install libgcc-s1)"
    if "libc.musl" in said or "ld-linux" in said or "libgcc_s" in said:
        return f"a library of the system is missing ({said}); this wheel is for glibc, not for musl (Alpine)"
    return f"{said}; if the package was copied or only half upgraded, {cure}"


def _tag(name: str) -> str:
    """``cpython-312-x86_64-linux-gnu`` of the name of an extension module."""
    return name[len("_monoceros.") :].rsplit(".so", 1)[0] or "another Python"
