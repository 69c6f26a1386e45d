// A real application: Express, express-session, connect-redis.
//
//   node express.js PORT REDIS_URL SECRET[,OLDER…] [PREFIX] [COOKIE]
//
// POST /login {"user": {"id": …, "teams": […]}, "max_age"?: MS} opens a session
// and answers {"session": ID} with the cookie. GET /me shows the session's user.
// POST /teams {"teams": […]} changes them. POST /logout {"announce"?: true}
// destroys the session; with `announce` the log-out message follows on
// `gateway.control` of the same Redis.
// Prints {"port": N} when it listens. The end of stdin ends it.
'use strict';

const express = require('express');
const session = require('express-session');
const { RedisStore } = require('connect-redis');
const { createClient } = require('redis');

async function main() {
  const [port, url, secrets, prefix = 'sess:', cookie = 'connect.sid'] = process.argv.slice(2);
  if (!secrets) throw new Error('usage: express.js PORT REDIS_URL SECRET[,OLDER…] [PREFIX] [COOKIE]');

  const client = createClient({ url });
  client.on('error', (error) => console.error(`redis: ${error.message}`));
  await client.connect();

  const app = express();
  app.use(express.json());
  app.use(
    session({
      store: new RedisStore({ client, prefix }),
      name: cookie,
      secret: secrets.split(','),
      resave: false,
      saveUninitialized: false,
    }),
  );

  app.post('/login', (request, response, next) => {
    request.session.regenerate((error) => {
      if (error) return next(error);
      request.session.user = request.body.user;
      if (request.body.max_age) request.session.cookie.maxAge = request.body.max_age;
      // Saved before the answer, so that the cookie works as soon as it is known.
      request.session.save((failed) => {
        if (failed) return next(failed);
        response.json({ session: request.sessionID });
      });
    });
  });

  app.get('/me', (request, response) => {
    if (!request.session.user) return response.status(401).json({});
    response.json({ session: request.sessionID, user: request.session.user });
  });

  app.post('/teams', (request, response, next) => {
    if (!request.session.user) return response.status(401).json({});
    request.session.user.teams = request.body.teams;
    request.session.save((error) => (error ? next(error) : response.json({})));
  });

  app.post('/logout', (request, response, next) => {
    const { sessionID } = request;
    request.session.destroy(async (error) => {
      if (error) return next(error);
      try {
        if (request.body && request.body.announce) {
          const message = JSON.stringify({ op: 'disconnect', session: sessionID });
          await client.publish('gateway.control', message);
        }
        response.json({ session: sessionID });
      } catch (failed) {
        next(failed);
      }
    });
  });

  const server = app.listen(Number(port), '127.0.0.1', (error) => {
    if (error) throw error;
    console.log(JSON.stringify({ port: server.address().port }));
  });
  process.stdin.resume();
  process.stdin.on('end', () => process.exit(0));
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
