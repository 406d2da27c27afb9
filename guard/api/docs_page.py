"""The API's description: a page of our own at `/docs`, and OpenAPI for whoever has a token.

The page loads nothing from another host. It is open, and reveals nothing: with the token that a
person types in, its script asks `/openapi.json`, and lists what that says.
"""

import base64
import hashlib

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from guard.api.access import BoundedRoute, require_token
from guard.api.answers import CleanJson
from guard.api.description import describe

router = APIRouter(include_in_schema=False, route_class=BoundedRoute)

_SCRIPT = """
const list = document.getElementById("routes");
const line = (name, text) => {
  const made = document.createElement(name);
  made.textContent = text;
  list.append(made);
};
document.getElementById("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  list.replaceChildren();
  const token = document.getElementById("token").value;
  const answer = await fetch("openapi.json", {headers: {Authorization: `Bearer ${token}`}});
  const found = await answer.json();
  if (!answer.ok) {
    line("p", found.detail);
    return;
  }
  for (const [path, methods] of Object.entries(found.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      line("h3", `${method.toUpperCase()} ${path}`);
      line("p", route.description || route.summary);
    }
  }
});
"""
_PAGE = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Registry Guard: the API</title></head>
<body>
<h1>Registry Guard: the API</h1>
<p>Send a token with every request, as the header <code>Authorization: Bearer TOKEN</code>:</p>
<pre>curl -H "Authorization: Bearer $GUARD_TOKEN" ADDRESS/scans</pre>
<p>An operator makes one with <code>guard token create</code>. Before there is any, the token of
<code>GUARD_WEBHOOK_TOKEN</code> is an operator's. Only <code>/health/live</code>,
<code>/health/ready</code> and this page answer without one; object stores may sign events
instead (<code>X-Guard-Timestamp</code>, <code>X-Guard-Signature</code>).</p>
<form id="ask">
<label>Token <input id="token" type="password" autocomplete="off"></label>
<button>List the routes</button>
</form>
<div id="routes"></div>
<script>{_SCRIPT}</script>
</body>
</html>
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = f"default-src 'none'; script-src 'sha256-{_HASH}'; connect-src 'self'; base-uri 'none'"


@router.get("/docs")
def page() -> HTMLResponse:
    """Explain how to authorise, and list the routes to whoever has a token."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})


@router.get("/openapi.json", dependencies=[Depends(require_token)])
def openapi(request: Request) -> CleanJson:
    """Answer with the OpenAPI description."""
    return CleanJson(describe(request.app))
