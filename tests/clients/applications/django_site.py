"""Django: its own Redis cache, django-redis, and sessions in either. Arguments: PORT [KEY_PREFIX].

Prints "done", or how a server refused."""

from __future__ import annotations

import sys
from typing import Any

import django
import redis
from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

BACKENDS = {"own": "django.core.cache.backends.redis.RedisCache", "redis": "django_redis.cache.RedisCache"}
NAMES = [f"{number}-name" for number in range(20)]


def visit(request: HttpRequest) -> HttpResponse:
    visits = request.session.get("visits", 0) + 1
    request.session["visits"] = visits
    return HttpResponse(str(visits))


def leave(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse("bye")


urlpatterns = [path("visit", visit), path("leave", leave)]


def keep(cache: Any) -> None:
    """What both caches do with one MULTI for each key, if any."""
    cache.set("one", {"a": [1, 2]}, timeout=60)
    assert cache.get("one") == {"a": [1, 2]}
    assert cache.add("one", 1) is False
    assert cache.get("two", "nothing") == "nothing"
    assert cache.get_or_set("count", 5) == 5
    assert cache.incr("count", 2) == 7
    for number, name in enumerate(NAMES):
        cache.set(name, number)
    assert cache.get_many([*NAMES, "absent"]) == {name: number for number, name in enumerate(NAMES)}
    assert cache.touch("one", 100)
    cache.delete_many(NAMES[:10])
    assert cache.has_key(NAMES[0]) is False
    assert cache.has_key(NAMES[10]) is True


def keep_more(cache: Any) -> None:
    """What only django-redis can do."""
    assert 90 < cache.ttl("one") <= 100
    assert sorted(cache.iter_keys("*-name")) == sorted(NAMES[10:])
    with cache.lock("lock", timeout=10):
        assert not cache.lock("lock", blocking_timeout=0.1).acquire()
    cache.sadd("set", 1, 2)
    assert cache.smembers("set") == {1, 2}


def browse() -> None:
    visitor, other = Client(), Client()
    assert [visitor.get("/visit").content for _ in range(3)] == [b"1", b"2", b"3"]
    assert other.get("/visit").content == b"1"
    assert visitor.get("/leave").content == b"bye"
    assert visitor.get("/visit").content == b"1"
    assert other.get("/visit").content == b"2"


def keep_many(own: Any, other: Any) -> None:
    """What puts several keys into one MULTI."""
    for cache in (own, other):
        cache.set_many({name: number for number, name in enumerate(NAMES)}, timeout=60)
        assert cache.get_many(NAMES) == {name: number for number, name in enumerate(NAMES)}
    assert other.delete_pattern("*-name") == len(NAMES)


def main(url: str, prefix: str) -> None:
    names = {
        name: {"BACKEND": backend, "LOCATION": f"{url}/0", "KEY_PREFIX": prefix + name}
        for name, backend in BACKENDS.items()
    }
    settings.configure(
        CACHES={"default": names["own"], **names},
        ROOT_URLCONF=__name__,
        SECRET_KEY="not one",
        ALLOWED_HOSTS=["testserver"],
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.cache",
    )
    django.setup()
    for name in BACKENDS:
        settings.SESSION_CACHE_ALIAS = name
        keep(caches[name])
        browse()
    keep_more(caches["redis"])
    keep_many(caches["own"], caches["redis"])
    for name in BACKENDS:
        caches[name].clear()
        assert caches[name].get("one") is None
    sys.stdout.write("done\n")


if __name__ == "__main__":
    try:
        main(f"redis://127.0.0.1:{sys.argv[1]}", sys.argv[2] if len(sys.argv) > 2 else "")
    except redis.ResponseError as error:
        sys.stdout.write(f"{error}\n")
