"""Settings, URLs, the Celery application and the one-machine runtime."""

import os

# An OpenMP thread that waits by spinning starves whoever shares its cores; where two trainings, or
# one training and the web server, share two cores, that made a step 4 to 10 times slower. Read once
# by the OpenMP library, when torch is first imported, and inherited by every process started here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
