"use strict";
// Reads the public REST API with a viewer's token, and changes nothing. The token stays in this tab's session storage.
// Everything that the API says is set as text; no markup is made of it, which the content security policy enforces.

const KEY = "fedpipe.token";
const JOBS_MS = 4000, JOB_MS = 2000, RETRY_MS = 2000;
const DRAW_MS = 200;
const EVENTS_MOST = 400, SITES_AS_LINES = 8, SITES_AS_CARDS = 60, ROUNDS_PAGES = 20;
const LAST = ["finished", "failed", "cancelled"];
