"""Publishes one item as thoonk.py does: written in MULTI, announced afterwards.

    python publisher.py redis://127.0.0.1:7001 FEED ID '{"title": "new"}'
"""
import sys
import time

import redis

url, feed, id, item = sys.argv[1:5]
shard = redis.Redis.from_url(url)
with shard.pipeline() as pipe:
    pipe.zadd(f"feed.ids:{feed}", {id: time.time()})
    pipe.incr(f"feed.publishes:{feed}")
    pipe.hset(f"feed.items:{feed}", id, item)
    is_new = pipe.execute()[0]
verb = "publish" if is_new else "edit"
shard.publish(f"feed.{verb}:{feed}", f"{id}\0{item}")
