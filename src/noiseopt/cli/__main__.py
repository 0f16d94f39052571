"""`python -m noiseopt.cli` is `noiseopt`."""

from noiseopt.cli import main

if __name__ == "__main__":
    main()
