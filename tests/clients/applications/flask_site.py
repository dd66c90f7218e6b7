"""Flask: Flask-Session, Flask-Caching and Flask-Limiter. Arguments: PORT. Prints "done"."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import redis
from flask import Flask, session
from flask_caching import Cache
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from flask_session import Session

NAMES = [f"{number}-name" for number in range(10)]
STRATEGIES = ("fixed-window", "moving-window", "sliding-window-counter")


def site(port: int, strategy: str) -> Any:
    url = f"redis://127.0.0.1:{port}"
    app: Any = Flask(strategy)
    app.config.update(
        SESSION_TYPE="redis", SESSION_REDIS=redis.Redis(port=port), CACHE_TYPE="RedisCache", CACHE_REDIS_URL=url,
        CACHE_KEY_PREFIX=strategy,
    )  # fmt: skip
    Session(app)
    cache = Cache(app)
    limiter = Limiter(get_remote_address, app=app, storage_uri=url, strategy=strategy, key_prefix=strategy)
    numbers = itertools.count(1)

    @app.get("/visit")
    def visit() -> str:
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    @app.get("/cached")
    @cache.cached(timeout=60)
    def cached() -> str:
        return str(next(numbers))

    @app.get("/limited")
    @limiter.limit("3 per minute")
    def limited() -> str:
        return "welcome"

    @app.get("/forget")
    def forget() -> str:
        cache.set_many(dict.fromkeys(NAMES, "value"))
        assert cache.get_many(*NAMES) == ["value"] * len(NAMES)
        cache.delete_many(*NAMES)
        cache.clear()
        return "forgotten"

    return app


def browse(app: Any) -> None:
    visitor, other = app.test_client(), app.test_client()
    assert [visitor.get("/visit").text for _ in range(3)] == ["1", "2", "3"]
    assert other.get("/visit").text == "1"
    assert [visitor.get("/cached").text for _ in range(3)] == ["1", "1", "1"]
    for number in range(10):
        place = {"REMOTE_ADDR": f"10.0.{number}.1"}
        codes = [visitor.get("/limited", environ_base=place).status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
    assert visitor.get("/forget").text == "forgotten"
    assert visitor.get("/cached").text == "2"


def main() -> None:
    for strategy in STRATEGIES:
        app = site(int(sys.argv[1]), strategy)
        app.testing = True  # an error comes here
        browse(app)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main()
