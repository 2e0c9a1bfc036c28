"""``python -m monoceros``: the same server as the script ``monoceros``."""

from monoceros import main

if __name__ == "__main__":
    main()
