"""Fills an empty cluster from seed.json by a gateway's HTTP API.

    python3 seed.py http://127.0.0.1:3101 TOKEN [seed.json]

What is there already stays: items with an id are written again, a list of
tasks goes on after as many as it holds.
"""
import http.client
import json
import pathlib
import sys
from urllib.parse import quote, urlsplit

HERE = pathlib.Path(__file__).parent


def part(id):
    """An id as it stands in a feed's name: the rule of docs/feeds.md."""
    # quote() leaves `.` alone as well, which the rule does not.
    return quote(id, safe="-_~@").replace(".", "%2E")


class Api:
    """One kept-alive connection to a gateway's admin listener."""

    def __init__(self, base, token):
        self.connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=30)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method, feed, body=None):
        path = f"/api/feeds/{quote(feed, safe='')}"
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        self.connection.request(method, path, data, self.headers)
        response = self.connection.getresponse()
        text = response.read().decode()
        if response.status not in (200, 201):
            sys.exit(f"{method} {path}: {response.status} {text.strip()}")
        return json.loads(text)

    def put(self, feed, id, item):
        self.call("POST", feed, {"id": id, "item": item, "type": "feed"})

    def append(self, feed, items):
        if not items:
            return
        held = len(self.call("GET", feed)["models"])
        for item in items[held:]:
            self.call("POST", feed, {"item": item, "type": "sorted_feed"})


def main():
    base, token = sys.argv[1:3]
    file = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else HERE / "seed.json"
    seed = json.loads(file.read_text(encoding="utf-8"))
    api = Api(base, token)
    for team in seed["teams"]:
        name = f"team.{part(team['id'])}.members"
        api.put("teams", team["id"], team["attrs"])
        for member in team["members"]:
            api.put(name, member["id"], member["attrs"])
            api.append(f"{name}.{part(member['id'])}.tasks", member["tasks"])
        tasks = sum(len(member["tasks"]) for member in team["members"])
        print(f"team {team['id']}: {len(team['members'])} members, {tasks} tasks")
    for user, notes in seed["notes"].items():
        api.append(f"user.{part(user)}.notes", notes)


if __name__ == "__main__":
    main()
