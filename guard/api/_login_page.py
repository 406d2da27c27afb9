"""The page on which a person signs in; it loads nothing, and every text in it is escaped."""

from urllib.parse import quote

from markupsafe import Markup

_PAGE = Markup("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Sign in: Registry Guard</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/console/static/console.css"></head>
<body>
<main>
<section class="login">
<h1>Registry Guard</h1>
{problem}{provider}<form class="act" method="post" action="/console/login">
<input type="hidden" name="next" value="{next}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" required>
<button>Sign in</button>
</form>
<p class="note">An operator makes tokens with <code>guard token create</code>.</p>
</section>
</main>
</body>
</html>
""")
_PROBLEM = Markup('<p role="alert">{}</p>\n')
_PROVIDER = Markup(
    '<p><a href="/console/login/oidc?next={}">Sign in with your organisation</a></p>\n'
)
_LEAVE = Markup("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={0}">
<title>Signed in: Registry Guard</title></head>
<body><main><p>You are signed in. <a href="{0}">Continue</a></p></main></body>
</html>
""")

_LEFT = Markup("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Signed out: Registry Guard</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/console/static/console.css"></head>
<body>
<main>
<section class="login">
<h1>Registry Guard</h1>
<p>You are signed out here. Your organisation may still have you signed in.</p>
<p><a href="{}">Sign out there as well</a></p>
<p><a href="/console/login">Sign in again</a></p>
</section>
</main>
</body>
</html>
""")


def login_page(*, wanted: str, problem: str = "", provider: bool = False) -> str:
    """The page as HTML.

    Args:
        wanted: the page to go to afterwards.
        problem: why the last attempt failed, as a sentence.
        provider: whether people may sign on with an identity provider.
    """
    alert = _PROBLEM.format(problem) if problem else ""
    link = _PROVIDER.format(quote(wanted, safe="/")) if provider else ""
    return _PAGE.format(next=wanted, problem=alert, provider=link)


def leave_page(wanted: str) -> str:
    """A page that goes on by itself, so that the browser's next request comes from a page of ours.

    A redirect would still count as sent by the identity provider, and the session's cookie, which
    is for this site alone, would not come along.
    """
    return _LEAVE.format(wanted)


def left_page(way_out: str) -> str:
    """The page of somebody who signed out, with the provider's page for doing so there."""
    return _LEFT.format(way_out)
