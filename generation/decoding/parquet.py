"""Reads one Parquet file for another process: `python -m … FILE MEMORY_MB`, batches as an Arrow
stream on its standard output, one sentence on its standard error where the file cannot be read.

A page of Parquet unpacks to whatever size its header says, and what the file's list of contents
says need not be true: the limit is this process's memory. It starts without the site's environment.
"""

from __future__ import annotations

import resource
import sys

ROWS = 64
MOST_COLUMNS = 2000
LARGEST_BATCH = 1 << 30


def main() -> int:
    path, memory_mb = sys.argv[1], int(sys.argv[2])
    import pyarrow
    import pyarrow.parquet

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    limit = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            if len(file.schema_arrow) > MOST_COLUMNS:
                raise ValueError(f"it has more than {MOST_COLUMNS} columns")
            with pyarrow.ipc.new_stream(sys.stdout.buffer, file.schema_arrow) as stream:
                for batch in file.iter_batches(batch_size=ROWS, use_threads=False):
                    if batch.nbytes > LARGEST_BATCH:
                        raise ValueError("its rows are too large")
                    stream.write_batch(batch)
    except MemoryError:
        sys.stderr.write("it takes too much memory to read")
        return 1
    except BrokenPipeError:
        return 1
    except Exception as error:
        sys.stderr.write(" ".join(str(error).split())[:300] or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
