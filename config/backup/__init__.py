"""The whole of an installation in one folder, and back: `manage.py backup`, `manage.py restore`.

    DIR/objects/ab/<sha256>          files by their content, shared by all backups in the folder
    DIR/backups/<time>/database.dump     what pg_dump says of one moment
    DIR/backups/<time>/files.jsonl.gz    path, size and hash of every file at that moment
    DIR/backups/<time>/manifest.json     versions, counts, and the hashes of the two above

The database is read at one moment. Its pictures and weights are copied after that moment: a row is
stored after the file that it names, and files never change, so all that the rows name is there.
"""
