"""A model's page: may I approve this, and what could still be wrong?"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from guard.api.access import guard_of, scope_of
from guard.console._page import HEADERS, page
from guard.console._route import PageRoute
from guard.console._standing import standing_of
from guard.console._who import who_reads
from guard.core.errors import InputError, PolicyError
from guard.flow.context import Guard
from guard.store import exhibits, ledger, listing, projects, scans
from guard.store.project_rows import ProjectRow
from guard.store.rows import ScanRow
from guard.store.scope import Scope
from guard.store.session import reading

if TYPE_CHECKING:
    from guard.reports.report import Report

MOST = 20  # verdicts, scans and acts that a page lists; the audit log has all
router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)


@router.get("/scans/{scan_id}")
def show(scan_id: str, request: Request, *, asked: bool = False) -> HTMLResponse:
    """All that is known of one scan's model, and what may be done about it."""
    reader, guard, scope = who_reads(request), guard_of(request), scope_of(request)
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id, scope)
    if scan.verdict_id is None:
        return page(request, "running.html.jinja", reader, scan=scan)
    report, drawn = _report(guard, scan)
    values = _values(report, drawn)
    return page(
        request,
        "model.html.jinja",
        reader,
        scan=scan,
        drawn=drawn,
        asked=asked,
        standing=standing_of(guard, reader.principal, scan, report),
        **_around(guard, report, scan, scope),
        **values,
    )


@router.get("/digests/{digest}")
def by_digest(digest: str, request: Request) -> RedirectResponse:
    """The newest scan of an artifact."""
    who_reads(request)
    scope = scope_of(request)
    with reading(guard_of(request).engine) as session:
        found = listing.of_digest(session, digest, 1, scope)
    if not found:
        raise InputError(f"No scan is about {digest[:12]}.", code="unknown_artifact")
    return RedirectResponse(f"/console/scans/{found[0].id}", 303)


@router.get("/scans/{scan_id}/report")
def report_page(scan_id: str, request: Request) -> HTMLResponse:
    """The report alone, as `guard report --format html` writes it, to keep or to print."""
    who_reads(request)
    guard, scope = guard_of(request), scope_of(request)
    with reading(guard.engine) as session:
        scan = scans.get(session, scan_id, scope)
    report, drawn = _report(guard, scan)
    from guard.reports.page import rendered

    text = rendered("report.html.jinja", **_values(report, drawn))
    own = text.partition('Content-Security-Policy" content="')[2].partition('"')[0]
    # The page's own policy allows its one style sheet by hash, and nothing else.
    policy = own.replace("&#39;", "'") + "; frame-ancestors 'none'"
    return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": policy})


@router.get("/verdicts/{verdict_id}/statement.json")
def statement(verdict_id: str, request: Request) -> JSONResponse:
    """The signed statement (DSSE), which `guard verify` and the gate read."""
    who_reads(request)
    scope = scope_of(request)
    with reading(guard_of(request).engine) as session:
        row = ledger.get(session, verdict_id, scope)
    name = f"attachment; filename=verdict-{row.id}.json"
    return JSONResponse(
        json.loads(json.dumps(dict(row.envelope))),
        headers={**HEADERS, "Content-Disposition": name},
    )


@router.post("/scans/{scan_id}/images")
async def ask_for_images(scan_id: str, request: Request) -> RedirectResponse:
    """Have the images of a model made by a worker."""

    def ask() -> None:
        from guard.flow import exhibits as drawing

        who_reads(request)
        drawing.ask(guard_of(request), scan_id, scope_of(request))

    await run_in_threadpool(ask)
    return RedirectResponse(f"/console/scans/{scan_id}?asked=1", 303)


def _report(guard: Guard, scan: ScanRow) -> "tuple[Report, Mapping[str, Any] | None]":
    """The report without blobs, and the images that a worker has made of them."""
    from guard.flow.report import facts_for

    report = facts_for(guard, scan.id)
    with reading(guard.engine) as session:
        return report, exhibits.find(session, report.verdict_id or "")


def _values(report: "Report", drawn: Mapping[str, Any] | None) -> dict[str, Any]:
    from guard.reports.html import page_values

    values = page_values(report)
    if drawn is not None:
        from guard.reports.exhibited import restored

        with suppress(KeyError, TypeError, ValueError):  # "failed", or a row that was changed
            values |= restored(drawn)
    return values


def _policy_name(guard: Guard, project: ProjectRow | None, digest: str) -> str:
    """What the policy of a digest is called, as far as it is one in force."""
    known = {one.digest: one.name for one in guard.policies}
    if project is not None and project.policy is not None:
        with suppress(PolicyError):
            own = guard.named_policy(project.policy)
            known[own.digest] = own.name
    return known.get(digest, "not in force any more")


def _around(guard: Guard, report: "Report", scan: ScanRow, scope: Scope) -> dict[str, Any]:
    """What was before, what is beside it, and who did what."""
    from guard.flow import waivers

    with reading(guard.engine) as session:
        history = listing.of_artifact(session, report.digest, MOST, scope)
        alike = listing.of_digest(session, report.digest, MOST, scope)
        related = [scan.parent_scan_id, *(one.child for one in scan.detail.candidates)]
        lineage = listing.by_id(session, [one for one in related if one], scope)
        about = [report.digest, scan.name, *(one.id for one in history)]
        done = listing.acts(session, MOST, subjects=about, scope=scope)
        seals = listing.seals(session, [row.id for row in done])
        project = projects.of_key(session, scan.bucket, scan.key)
        served = listing.versions_of(session, scan.name, MOST, scope)
    return {
        "policy": _policy_name(guard, project, report.policy or ""),
        "project": project,
        "history": history,
        "alike": [one for one in alike if one.id != scan.id],
        "lineage": lineage,
        "acts": done,
        "seals": seals,
        "versions": served,
        "waivers": waivers.about(guard, report.digest),
    }
