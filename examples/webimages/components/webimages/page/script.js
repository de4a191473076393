// One page, four views. The state comes from the server; what changes comes as events.

const $ = (id) => document.getElementById(id);
let events = null;
let shown = new Map(); // image number -> its tile

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

async function ask(path, options = {}) {
  const answer = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  const body = await answer.json().catch(() => ({ error: `the server answers ${answer.status}` }));
  if (!answer.ok) throw new Error(body.error);
  return body;
}

function complain(place, error) {
  place.textContent = error ? error.message : "";
  place.hidden = !error;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function when(seconds) {
  return new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function box(spec) {
  const side = (pixels) => pixels || "any";
  return `${spec.policy} ${side(spec.width)} × ${side(spec.height)}, ${spec.format}`;
}

// One job.

function bar(element, job) {
  const share = (count) => `${(100 * count) / Math.max(1, job.total)}%`;
  element.querySelector(".done").style.width = share(job.counts.completed);
  element.querySelector(".bad").style.width = share(job.counts.failed);
}

function showCounts(job) {
  bar(document.querySelector("#job .bar"), job);
  const line = $("counts");
  const failed = make("b", job.counts.failed ? "bad" : "", job.counts.failed);
  line.replaceChildren(
    make("b", "", job.counts.completed), ` of ${job.total} done, `, failed, " failed, ",
    make("b", "", job.counts.waiting), " in work",
  );
  $("retry-all").hidden = !job.counts.failed;
}

function showImage(image) {
  let tile = shown.get(image.image);
  if (!tile) {
    tile = $("tile").content.firstElementChild.cloneNode(true);
    tile.querySelector(".retry").addEventListener("click", () => putBack(image.job, image.image));
    shown.set(image.image, tile);
    $("grid").append(tile);
  }
  tile.className = `tile ${image.state}`;
  tile.querySelector("h2").textContent = image.name;
  const picture = tile.querySelector(".picture");
  const img = picture.querySelector("img");
  const facts = tile.querySelector(".facts");
  const palette = tile.querySelector(".palette");
  const result = image.result;
  img.hidden = !result;
  palette.hidden = !result;
  palette.replaceChildren();
  if (result) {
    img.src = picture.href = result.url;
    img.alt = image.name;
    facts.textContent = `${result.width} × ${result.height} ${result.format}, ${size(result.bytes)} · resize.${result.by}`;
    facts.title = `sharpness ${result.analysis.sharpness}, average hash ${result.analysis.hash}`;
    for (const shade of result.analysis.palette) {
      const swatch = make("i");
      swatch.style.background = shade.colour;
      swatch.style.flexGrow = shade.share;
      swatch.title = `${shade.colour}, ${Math.round(100 * shade.share)}%`;
      palette.append(swatch);
    }
  } else {
    img.removeAttribute("src");
    picture.removeAttribute("href");
    facts.textContent = box(image.spec);
  }
  tile.querySelector(".state").textContent =
    image.state === "failed" ? `failed at ${image.failure.role}` : image.state === "waiting" ? "in work" : "";
  tile.querySelector(".reason").textContent = image.failure ? image.failure.reason : "";
  tile.querySelector(".retry").hidden = image.state !== "failed";
}

async function putBack(job, image) {
  const path = image === undefined ? `/jobs/${job}/retry` : `/jobs/${job}/images/${image}/retry`;
  try {
    await ask(path, { method: "POST" });
    complain($("job-problem"), null);
  } catch (error) {
    complain($("job-problem"), error);
  }
}

function showJob(id) {
  $("job-id").textContent = id.slice(0, 8);
  $("retry-all").onclick = () => putBack(id);
  shown = new Map();
  $("grid").replaceChildren();
  complain($("job-problem"), null);
  ask(`/jobs/${id}`).catch((error) => {
    complain($("job-problem"), error);
    events?.close();
  });
  events = new EventSource(`/jobs/${id}/events`);
  events.addEventListener("job", (event) => {
    const job = JSON.parse(event.data);
    $("job-when").textContent = `${job.total} images, ${when(job.created)}`;
    showCounts(job);
    job.images.forEach(showImage);
  });
  events.addEventListener("image", (event) => {
    const { job, image } = JSON.parse(event.data);
    showCounts(job);
    showImage(image);
  });
}

// Lists.

async function showJobs() {
  const { jobs } = await ask("/jobs");
  const rows = jobs.map((job) => {
    const row = make("div", "row");
    const link = make("a", "", job.id.slice(0, 8));
    link.href = `/jobs/${job.id}`;
    const line = make("div", "bar");
    line.append(make("i", "done"), make("i", "bad"));
    bar(line, job);
    const failed = job.counts.failed ? `, ${job.counts.failed} failed` : "";
    row.append(link, line, make("p", "", `${job.counts.completed} of ${job.total} done${failed} · ${when(job.created)}`));
    return row;
  });
  $("jobs-rows").replaceChildren(...(rows.length ? rows : [make("p", "empty", "No jobs yet.")]));
}

async function showFailures() {
  const { images } = await ask("/failed");
  const rows = images.map((image) => {
    const row = make("div", "row");
    const link = make("a", "", image.name);
    link.href = `/jobs/${image.job}`;
    const reason = make("p", "reason", `${image.failure.role}: ${image.failure.reason}`);
    const button = make("button", "", "Put back");
    button.addEventListener("click", async () => {
      button.disabled = true;
      await ask(`/jobs/${image.job}/images/${image.image}/retry`, { method: "POST" });
      button.textContent = "Put back ✓";
    });
    row.append(link, reason, button);
    return row;
  });
  $("failures-rows").replaceChildren(...(rows.length ? rows : [make("p", "empty", "Nothing has failed.")]));
}

// A new job.

let files = [];

function choose(list) {
  files = [...list];
  $("chosen").textContent = files.length
    ? files.length === 1 ? files[0].name : `${files.length} files`
    : "or drop them here";
}

async function submit(event) {
  event.preventDefault();
  const form = $("form");
  const spec = {
    width: Number(form.width.value), height: Number(form.height.value),
    format: form.format.value, policy: form.policy.value,
  };
  const urls = form.urls.value.split(/\s+/).filter(Boolean);
  try {
    if (urls.length && files.length) throw new Error("One job at a time: either addresses or files.");
    if (!urls.length && !files.length) throw new Error("Give an address, or choose a file.");
    let options;
    if (files.length) {
      const body = new FormData();
      for (const [key, value] of Object.entries(spec)) body.append(key, value);
      for (const file of files) body.append("images", file);
      options = { method: "POST", body };
    } else {
      const body = JSON.stringify({ images: urls.map((url) => ({ url, ...spec })) });
      options = { method: "POST", body, headers: { "Content-Type": "application/json" } };
    }
    const job = await ask("/jobs", options);
    complain($("problem"), null);
    location.assign(job.url);
  } catch (error) {
    complain($("problem"), error);
  }
}

$("form").addEventListener("submit", submit);
$("form").images.addEventListener("change", (event) => choose(event.target.files));
const drop = $("drop");
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  choose(event.dataTransfer.files);
});

// Which view.

function route() {
  events?.close();
  const job = location.pathname.match(/^\/jobs\/([0-9a-f]{32})$/);
  const view = job ? "job" : { "#jobs": "jobs", "#failures": "failures" }[location.hash] || "new";
  for (const name of ["new", "job", "jobs", "failures"]) $(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    link.toggleAttribute("aria-current", link.dataset.view === view);
  }
  if (view === "job") showJob(job[1]);
  if (view === "jobs") showJobs();
  if (view === "failures") showFailures();
}

window.addEventListener("hashchange", route);
route();
