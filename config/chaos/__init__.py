"""Whether anything is lost when processes are killed: `make chaos`.

A whole site runs on data of its own. People submit judgments over HTTP and a program orders work
over the API, each sending again until they are answered, while one process after the other is
killed with SIGKILL. Then the database is asked for everything that was acknowledged.
"""
