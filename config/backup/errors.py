class BackupError(Exception):
    """One readable sentence: why it cannot be backed up or restored, and the remedy."""
