"""The page on which a person signs in; it loads nothing, and every text in it is escaped."""

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


def login_page(*, wanted: str, problem: str = "") -> str:
    """The page as HTML.

    Args:
        wanted: the page to go to afterwards.
        problem: why the last attempt failed, as a sentence.
    """
    alert = _PROBLEM.format(problem) if problem else ""
    return _PAGE.format(next=wanted, problem=alert, provider="")
