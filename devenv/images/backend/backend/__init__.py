"""The sample backend: stores each request in PostgreSQL, runs it as a workflow if Temporal is on, answers from the row.

A program of its own, in its own image; it imports nothing of devenv.

    environment ─► settings ─► service ─► api (HTTP)
                                  ├─► store  (PostgreSQL)
                                  └─► runner (Temporal: client and worker) ─► flow (workflow and activity)
"""
