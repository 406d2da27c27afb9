"""The review console: server-rendered pages under /console/, mounted by the API.

No page has a script, and nothing is fetched from another host. A page reads the database alone;
what a person asks for is recorded as an order (`guard.flow.orders`) and done by the process with
the key (decision 0059).
"""
