"""python -m r1nb: the command r1nb."""

from r1nb.cli import main

if __name__ == "__main__":
    main()
