"""Works on one Thoonk job queue with nothing but redis-py and the contract.

    python worker.py redis://127.0.0.1:7001 shipTask [--count N] [--result JSON]

Prints {"ready": QUEUE}, then each job as a line of JSON. A job is popped,
claimed, read and finished, and its result is announced on job.finish:QUEUE.
Without --result that is {"shipped": the job's `id`, "by": its user}.
"""
import argparse
import json
import sys
import time

import redis

NO_RESULT = object()


class Queue:
    """A job queue on the shard that the ring gives it to."""

    def __init__(self, shard, name):
        self.shard = shard
        self.name = name

    def key(self, kind):
        return f"feed.{kind}:{self.name}"

    def get(self, timeout):
        """Pops and claims a job; None where none came in time."""
        popped = self.shard.brpop([self.key("ids")], timeout)
        if popped is None:
            return None
        id = popped[1]
        with self.shard.pipeline() as pipe:
            pipe.zadd(self.key("claimed"), {id: int(time.time() * 1000)})
            pipe.hget(self.key("items"), id)
            item = pipe.execute()[1]
        return id.decode(), item

    def finish(self, id, result=NO_RESULT):
        """Takes a claimed job away; its result goes out in the same transaction."""

        def write(pipe):
            if pipe.zrank(self.key("claimed"), id) is None:
                return
            pipe.multi()
            pipe.zrem(self.key("claimed"), id)
            pipe.hdel(self.key("cancelled"), id)
            pipe.zrem(self.key("published"), id)
            pipe.incr(self.key("finishes"))
            if result is not NO_RESULT:
                pipe.publish(f"job.finish:{self.name}", f"{id}\0{result}")
            pipe.hdel(self.key("items"), id)

        self.shard.transaction(write, self.key("claimed"))

    def cancel(self, id):
        """Puts a claimed job back."""

        def write(pipe):
            if pipe.zrank(self.key("claimed"), id) is None:
                return
            pipe.multi()
            pipe.hincrby(self.key("cancelled"), id, 1)
            pipe.lpush(self.key("ids"), id)
            pipe.zrem(self.key("claimed"), id)

        self.shard.transaction(write, self.key("claimed"))


def answer(job):
    return {"shipped": job.get("id"), "by": job.get("user")}


def say(message):
    print(json.dumps(message, ensure_ascii=False), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="the shard that holds the queue")
    parser.add_argument("queue")
    parser.add_argument("--count", type=int, default=0, help="end after so many jobs")
    parser.add_argument("--result", help="the result of every job, as it is sent")
    parser.add_argument("--no-result", action="store_true", help="finish without a result")
    parser.add_argument("--delay", type=float, default=0, help="seconds before finishing")
    parser.add_argument("--hold", action="store_true", help="claim, and never finish")
    parser.add_argument("--cancel-first", action="store_true", help="put the first job back once")
    options = parser.parse_args()

    sys.stdout.reconfigure(encoding="utf-8")
    queue = Queue(redis.Redis.from_url(options.url), options.queue)
    queue.shard.ping()
    say({"ready": options.queue})

    cancelled = False
    done = 0
    while not options.count or done < options.count:
        popped = queue.get(timeout=1)
        if popped is None:
            continue
        id, item = popped
        if item is None:
            # Withdrawn between its pop and its claim.
            queue.finish(id)
            continue
        job = json.loads(item)
        if options.cancel_first and not cancelled:
            cancelled = True
            queue.cancel(id)
            say({"cancelled": id})
            continue
        say({"id": id, "job": job})
        done += 1
        if options.hold:
            continue
        time.sleep(options.delay)
        if options.no_result:
            queue.finish(id)
        else:
            queue.finish(id, options.result or json.dumps(answer(job)))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
