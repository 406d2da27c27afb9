"""Random schedules for the whole service: the real code, a frozen clock, crashes at every commit.

`world` holds one service (SQLite, blobs, a folder to serve from, a bucket in memory), `turns` runs
its workers one at a time and lets them die, `steps` and `people` are what may happen, `watch` and
`audit` check the invariants that docs/architecture.md numbers, and `mutants` are faults that the
checks must find. Only the work on models is made up (`jobs`).
"""
