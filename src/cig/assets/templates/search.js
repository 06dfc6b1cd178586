"use strict";

// The page of `cig serve`. The query is one object; the address holds it, and every change goes through the address,
// so that back, forward and a shared link work. It lies behind #, which browsers keep from servers and their logs.

// Texts

const TEXTS = {
  en: {
    skip: "Skip to the results", headline: "Find the picture you mean",
    lead: "Drop or paste a picture, and say what should differ.",
    pictures: "Pictures of the query", add: "Add a picture", addMore: "Add another picture", remove: "Remove {name}",
    text: "What should be different, or what is looked for", textHint: "but blue", textAlone: "a red bicycle",
    without: "What should not be in it", withoutHint: "without …", search: "Search",
    refine: "Filters", imagine: "Imagine the picture first", chips: "Filters in use", least: "Least score",
    any: "any", group: "Only the best of each", all: "all", from: "{column}, at least", to: "{column}, at most",
    contains: "{column} contains", perGroup: "best of each {column}", drop: "Drop pictures anywhere",
    results: { one: "{n} picture", other: "{n} pictures" }, searched: "of {n}, in {ms} ms",
    size: { one: "{n} picture", other: "{n} pictures" }, startHere: "Or start from one of these", searching: "Searching …",
    more: "Show more", use: "Use as reference", useName: "Use as reference: {name}", join: "Add to the query",
    close: "Close", before: "Picture before", after: "Next picture", score: "score",
    noPicture: "no preview", phases: "Which results", first: "By the query", second: "With the imagined picture",
    imagining: "imagining …", imagined: "imagined", notImagined: "could not be imagined",
    nothingOver: "No picture scores {least} or more", nothingOverHelp: "Lower the least score to see the nearest pictures.",
    showNearest: "Show the nearest", nothing: "No picture fits", nothingHelp: "The filters leave no picture to search.",
    clear: "Clear the filters", empty: "There are no pictures yet", emptyHelp: "Add some to the folder, and open this page again.",
    again: "Try again", offline: "The server does not answer", offlineHelp: "Start it again with the same command, then try again.",
    expired: "This page may not search any more", expiredHelp: "Open the address that the server printed; it holds the key.",
    busyHelp: "Trying again in {n} s.", failed: "The search failed",
    lost: { one: "An uploaded picture stays on the device that chose it, so this link lacks it. Add it again.", other: "{n} uploaded pictures stay on the device that chose them, so this link lacks them. Add them again." },
    tooMany: "A query takes at most {n} pictures.", notPictures: "Not a picture: {names}",
    needPicture: "To imagine a picture, give one to start from and say what should differ.",
  },
  vi: {
    skip: "Tới kết quả", headline: "Tìm đúng bức ảnh bạn nghĩ tới",
    lead: "Thả hoặc dán một ảnh, rồi nói điều cần khác đi.",
    pictures: "Ảnh của truy vấn", add: "Thêm ảnh", addMore: "Thêm ảnh nữa", remove: "Bỏ {name}",
    text: "Điều cần khác đi, hoặc điều cần tìm", textHint: "nhưng màu xanh", textAlone: "chiếc xe đạp đỏ",
    without: "Điều không nên có trong ảnh", withoutHint: "không có …", search: "Tìm",
    refine: "Bộ lọc", imagine: "Hình dung ảnh trước", chips: "Bộ lọc đang dùng", least: "Điểm tối thiểu",
    any: "bất kỳ", group: "Chỉ ảnh tốt nhất của mỗi", all: "tất cả", from: "{column}, ít nhất", to: "{column}, nhiều nhất",
    contains: "{column} chứa", perGroup: "tốt nhất của mỗi {column}", drop: "Thả ảnh vào bất cứ đâu",
    results: "{n} ảnh", searched: "trong số {n}, {ms} ms",
    size: "{n} ảnh", startHere: "Hoặc bắt đầu từ một trong các ảnh này", searching: "Đang tìm …",
    more: "Xem thêm", use: "Dùng làm ảnh gốc", useName: "Dùng làm ảnh gốc: {name}", join: "Thêm vào truy vấn",
    close: "Đóng", before: "Ảnh trước", after: "Ảnh sau", score: "điểm",
    noPicture: "không xem trước được", phases: "Kết quả nào", first: "Theo truy vấn", second: "Với ảnh hình dung",
    imagining: "đang hình dung …", imagined: "hình dung", notImagined: "không hình dung được",
    nothingOver: "Không ảnh nào đạt {least} điểm", nothingOverHelp: "Hạ điểm tối thiểu để xem các ảnh gần nhất.",
    showNearest: "Xem các ảnh gần nhất", nothing: "Không có ảnh phù hợp", nothingHelp: "Bộ lọc không để lại ảnh nào để tìm.",
    clear: "Xóa bộ lọc", empty: "Chưa có ảnh nào", emptyHelp: "Thêm ảnh vào thư mục rồi mở lại trang này.",
    again: "Thử lại", offline: "Máy chủ không trả lời", offlineHelp: "Chạy lại máy chủ bằng lệnh cũ, rồi thử lại.",
    expired: "Trang này không còn được phép tìm", expiredHelp: "Mở địa chỉ mà máy chủ đã in ra; khóa nằm trong đó.",
    busyHelp: "Thử lại sau {n} giây.", failed: "Tìm kiếm không thành công",
    lost: "{n} ảnh tải lên chỉ ở trên thiết bị đã chọn, nên liên kết này không có. Hãy thêm lại.",
    tooMany: "Mỗi truy vấn có tối đa {n} ảnh.", notPictures: "Không phải ảnh: {names}",
    needPicture: "Để hình dung, hãy đưa một ảnh gốc và nói điều cần khác đi.",
  },
};
const language = navigator.languages.map((tag) => tag.slice(0, 2)).find((tag) => tag in TEXTS) || "en";
const plural = new Intl.PluralRules(language);
const count = (n) => n.toLocaleString(language);

function say(key, values = {}) {
  const text = TEXTS[language][key];
  const form = typeof text === "string" ? text : text[plural.select(values.n)];
  return form.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "number" ? count(values[name]) : values[name]));
}

function translate() {
  document.documentElement.lang = language;
  for (const each of document.querySelectorAll("[data-say]")) each.textContent = say(each.dataset.say);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", say(each.dataset.label));
  for (const each of document.querySelectorAll("[data-hint]")) each.placeholder = say(each.dataset.hint);
}

// Elements: text is only ever set as text, so a picture's name cannot become markup

const at = (id) => document.getElementById(id);
const form = at("query");
const SHAPES = {
  cross: "m6 6 12 12M18 6 6 18", use: "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 6 6v4",
  lens: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13m5 11.5 5 5", trouble: "M12 4 2.8 19.5h18.4zM12 10v4.5m0 2.3v.01",
};

function make(kind, properties = {}, ...children) {
  const { label, ...rest } = properties;
  const element = Object.assign(document.createElement(kind), rest);
  if (label) element.setAttribute("aria-label", label);
  element.append(...children);
  return element;
}

function shape(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", SHAPES[name]);
  svg.append(path);
  return svg;
}

function image(source, name) {
  const picture = make("img", { src: source, alt: "", loading: "lazy", decoding: "async", draggable: false });
  picture.addEventListener("error", () => picture.replaceWith(make("span", { className: "none", textContent: name || say("noPicture") })));
  return picture;
}

// A long name loses its middle: its end, with the suffix, stays
function nameOf(path) {
  const name = path.slice(path.lastIndexOf("/") + 1);
  const letters = [...name];
  const cut = letters.length > 14 ? letters.length - 9 : letters.length;
  const parts = [letters.slice(0, cut), letters.slice(cut)].map((part) => make("span", { textContent: part.join("") }));
  return make("span", { className: "name", title: name, dir: "ltr" }, ...parts);
}

const folderOf = (path) => path.slice(0, Math.max(0, path.lastIndexOf("/")));
const pictureUrl = (name, side) => `/v1/pictures/${name.split("/").map(encodeURIComponent).join("/")}/thumbnail?side=${side}`;

// The query, and the address that holds it

const MOST_PICTURES = 8;
const PAGE = 20; // hits at first, and at each "show more"
const MOST_HITS = 1000;
const EMPTY = { pictures: [], text: "", without: "", where: [], least: 0, group: "", k: PAGE, imagine: false };
const uploads = new Map(); // id -> { id, file, url, name }: they live as long as this page
let query = EMPTY;

function toAddress() {
  const parts = new URLSearchParams();
  for (const key of ["text", "without"]) if (query[key]) parts.set(key, query[key]);
  for (const picture of query.pictures) parts.append(picture.file ? "upload" : "picture", picture.file ? picture.id : picture.name);
  for (const condition of query.where) parts.append("where", condition);
  if (query.least) parts.set("min_score", query.least);
  if (query.group) parts.set("group_by", query.group);
  if (query.k !== PAGE) parts.set("k", query.k);
  if (query.imagine) parts.set("imagine", "true");
  return parts.toString();
}

// Returns the query, and how many uploads it names that only another page has
function fromAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const pictures = [...parts].map(([key, value]) => (key === "picture" ? { name: value } : key === "upload" ? uploads.get(value) || null : undefined))
    .filter((picture) => picture !== undefined);
  const found = pictures.filter(Boolean).slice(0, MOST_PICTURES);
  const least = Math.min(1, Math.max(0, Number(parts.get("min_score")) || 0));
  const k = Math.min(MOST_HITS, Math.max(1, Math.trunc(Number(parts.get("k"))) || PAGE));
  const imagine = "imagine" in document.body.dataset && parts.get("imagine") === "true";
  const words = { text: parts.get("text") || "", without: parts.get("without") || "", group: parts.get("group_by") || "" };
  return [{ ...words, pictures: found, where: parts.getAll("where"), least, k, imagine }, pictures.length - found.length];
}

const isEmpty = () => !query.pictures.length && !query.text;

function change(changes, { replace = false, stay = false } = {}) {
  query = { ...query, k: PAGE, ...typed(), ...changes };
  const address = `#${toAddress()}`;
  if (replace || address === (location.hash || "#")) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  note("");
  showQuery();
  if (!stay) scrollTo({ top: 0 });
  return search();
}

const typed = () => ({ text: form.elements.text.value.trim(), without: form.elements.without.value.trim() });

function readAddress() {
  const [read, lost] = fromAddress();
  query = read;
  form.elements.text.value = query.text;
  form.elements.without.value = query.without;
  note(lost ? say("lost", { n: lost }) : "");
  showQuery();
  return search();
}

function note(text) {
  at("note").textContent = text;
  at("note").hidden = !text;
}

// Showing the query

function showQuery() {
  const full = query.pictures.length >= MOST_PICTURES;
  at("pictures").replaceChildren(...query.pictures.map(tile));
  at("add").hidden = full;
  at("add").setAttribute("aria-label", say(query.pictures.length ? "addMore" : "add"));
  form.elements.text.placeholder = say(query.pictures.length ? "textHint" : "textAlone");
  if (form.elements.imagine) form.elements.imagine.checked = query.imagine;
  form.elements.least.value = query.least;
  showLeast();
  form.elements.group.value = query.group;
  at("chips").replaceChildren(...chips());
  showColumns();
  document.title = [query.text || query.pictures[0]?.name, TITLE].filter(Boolean).join(" · ");
}

function tile(picture) {
  const remove = () => change({ pictures: query.pictures.filter((other) => other !== picture) }).then(() => at("add").focus());
  const button = make("button", { type: "button", className: "remove", label: say("remove", { name: picture.name }), onclick: remove }, shape("cross"));
  const shown = image(picture.url || pictureUrl(picture.name, 320), picture.name);
  shown.alt = picture.name;
  return make("li", { title: picture.name }, shown, button);
}

// Pictures: chosen, dropped, pasted, or from the index

function addFiles(files) {
  const isPicture = (file) => file.type.startsWith("image/") || /\.(hei[cf]|avif|jp2|tiff?)$/i.test(file.name);
  const others = files.filter((file) => !isPicture(file)).map((file) => file.name);
  const fresh = files.filter(isPicture).map((file) => ({ id: Math.random().toString(36).slice(2), file, name: file.name, url: URL.createObjectURL(file) }));
  for (const picture of fresh) uploads.set(picture.id, picture);
  const told = others.length ? say("notPictures", { names: others.join(", ") }) : "";
  if (fresh.length) addPictures(fresh, told);
  else note(told);
}

function addPictures(pictures, told = "") {
  const all = [...query.pictures, ...pictures];
  change({ pictures: all.slice(0, MOST_PICTURES) });
  if (all.length > MOST_PICTURES) note(say("tooMany", { n: MOST_PICTURES }));
  else note(told);
}

function useAsReference(name) {
  at("enlarged").close();
  form.elements.text.value = form.elements.without.value = "";
  change({ pictures: [{ name }] });
  if (matchMedia("(hover: hover)").matches) form.elements.text.focus({ preventScroll: true }); // no keyboard over a phone's page
}

// Asking the server

async function ask(path, options = {}) {
  const answer = await fetch(path, options).catch((error) => {
    throw options.signal?.aborted ? error : Object.assign(new Error(say("offlineHelp")), { title: say("offline") });
  });
  if (answer.ok) return answer.json();
  if (answer.status === 401) throw Object.assign(new Error(say("expiredHelp")), { title: say("expired") });
  const problem = await answer.json().catch(() => ({}));
  const wait = answer.status === 429 ? Number(answer.headers.get("Retry-After")) || 1 : 0;
  const detail = typeof problem.detail === "string" ? problem.detail : "";
  throw Object.assign(new Error(detail), { title: problem.title || `${say("failed")} (${answer.status})`, wait });
}

function body() {
  const data = new FormData();
  for (const picture of query.pictures) picture.file ? data.append("image", picture.file) : data.append("picture", picture.name);
  for (const key of ["text", "without"]) if (query[key]) data.append(key, query[key]);
  for (const condition of query.where) data.append("where", condition);
  if (query.least) data.append("min_score", query.least);
  if (query.group) data.append("group_by", query.group);
  if (imagines()) data.append("imagine", "true");
  data.append("k", Math.min(MOST_HITS, query.k + query.pictures.length)); // the pictures of the query may be among them
  return data;
}

const imagines = () => query.imagine && query.pictures.length && query.text;
const fresh = (hits) => hits.filter((hit) => !query.pictures.some((picture) => picture.name === hit.name && !picture.file)).slice(0, query.k);
let running = new AbortController();
let shown = { hits: [], phases: null }; // phases: the hits of both, once a picture was imagined

async function search() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  document.body.classList.toggle("start", isEmpty());
  showImagined(null);
  if (isEmpty()) return showStart();
  showWaiting();
  try {
    const answer = await ask("/v1/search", { method: "POST", body: body(), signal });
    showAnswer({ ...answer, hits: fresh(answer.hits) });
    if (answer.imagined) await watch(answer, signal);
  } catch (error) {
    if (!signal.aborted) showError(error, signal);
  }
}

// The second phase: ask for it less and less often until it is there; once another query is shown, nobody needs it
async function watch({ id, imagined }, signal) {
  const drop = () => fetch(`/v1/search/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  signal.addEventListener("abort", drop);
  showImagined(imagined);
  for (let pause = 500; imagined.status === "pending"; pause = Math.min(pause * 1.3, 3000)) {
    await new Promise((done) => setTimeout(done, pause));
    if (signal.aborted) return;
    ({ imagined } = await ask(`/v1/search/${id}`, { signal }));
  }
  signal.removeEventListener("abort", drop);
  showImagined(imagined);
  if (imagined.detail) note(imagined.detail);
  if (imagined.status !== "done" || !imagined.hits) return;
  shown.phases = [shown.hits, fresh(imagined.hits)];
  showPhase(1);
}

// Showing what came

function clear() {
  at("answer").classList.remove("waiting");
  at("message").hidden = at("more").hidden = at("phases").hidden = true;
  at("count").replaceChildren();
  at("hits").removeAttribute("aria-busy");
}

function showWaiting() {
  const bones = Array.from({ length: PAGE / 2 }, () => make("li", { className: "bone" }));
  const keep = shown.hits.length && !document.body.classList.contains("from-start");
  if (!keep) { clear(); at("hits").replaceChildren(...bones); }
  at("message").hidden = true;
  at("hits").setAttribute("aria-busy", "true");
  at("answer").classList.toggle("waiting", Boolean(keep));
  at("count").textContent = say("searching");
}

function showAnswer(answer) {
  clear();
  shown = { hits: answer.hits, phases: null };
  document.body.classList.remove("from-start");
  if (!answer.hits.length) return showNothing(answer);
  showHits(answer.hits);
  const words = [say("results", { n: answer.hits.length }), say("searched", { n: answer.searched, ms: Math.round(answer.took_ms) })];
  at("count").textContent = words.join(" ");
  at("more").hidden = answer.hits.length < query.k || query.k >= MOST_HITS || answer.hits.length >= answer.searched;
  if (query.imagine && !imagines()) note(say("needPicture"));
}

function showHits(hits) {
  shown.hits = hits;
  at("hits").replaceChildren(...hits.map(card));
}

function showPhase(which) {
  showHits(shown.phases[which]);
  at("phases").hidden = false;
  [at("first"), at("second")].forEach((button, i) => button.setAttribute("aria-pressed", i === which));
}

function card(hit, index) {
  const score = hit.score === undefined ? "" : hit.score.toFixed(3);
  const frame = make("span", { className: "frame" }, image(pictureUrl(hit.name, 480)));
  const caption = make("span", { className: "caption" }, nameOf(hit.name),
    make("span", { className: "folder", textContent: folderOf(hit.name), title: folderOf(hit.name) }), make("span", { className: "score", textContent: score }));
  const show = make("button", { type: "button", className: "show", onclick: () => enlarge(index) }, frame, caption);
  const take = make("button", { type: "button", className: "take", label: say("useName", { name: hit.name }), onclick: () => useAsReference(hit.name) },
    shape("use"), make("span", { textContent: say("use") }));
  const item = make("li", { draggable: true }, show, take);
  item.addEventListener("dragstart", (event) => event.dataTransfer.setData(OURS, hit.name));
  return item;
}

function showImagined(imagined) {
  const place = at("imagined");
  place.className = `tile ${imagined?.status || ""}`;
  place.hidden = !imagined;
  place.replaceChildren();
  if (!imagined) return;
  if (imagined.status !== "done") return place.append(say(imagined.status === "failed" ? "notImagined" : "imagining"));
  const picture = image(imagined.picture);
  picture.alt = say("imagined");
  const open = () => enlargePicture({ name: say("imagined"), source: imagined.picture });
  place.append(make("button", { type: "button", onclick: open }, picture), make("small", { textContent: say("imagined"), ariaHidden: "true" }));
}

function message({ title, detail, actions, symbol, failed = false }) {
  const buttons = actions.map(([text, act]) => make("button", { type: "button", className: "primary", textContent: text, onclick: act }));
  at("message").replaceChildren(shape(symbol), make("h3", { textContent: title }), make("p", { textContent: detail }), make("div", { className: "actions" }, ...buttons));
  at("message").classList.toggle("failed", failed);
  at("message").hidden = false;
  at("hits").replaceChildren();
}

const clearFilters = () => change({ where: [], least: 0, group: "" });

function showNothing() {
  if (query.least) {
    const title = say("nothingOver", { least: query.least.toFixed(2) });
    return message({ title, detail: say("nothingOverHelp"), symbol: "lens", actions: [[say("showNearest"), () => change({ least: 0 })]] });
  }
  message({ title: say("nothing"), detail: query.where.length ? say("nothingHelp") : "", symbol: "lens", actions: query.where.length ? [[say("clear"), clearFilters]] : [] });
}

function showError(error, signal) {
  clear();
  shown = { hits: [], phases: null };
  showImagined(null);
  const actions = [[say("again"), search]];
  if (query.where.length || query.group) actions.push([say("clear"), clearFilters]);
  const detail = [error.message, error.wait ? say("busyHelp", { n: error.wait }) : ""].filter(Boolean).join(" ");
  message({ title: error.title || say("failed"), detail, symbol: "trouble", actions, failed: true });
  if (error.wait) setTimeout(() => signal.aborted || search(), error.wait * 1000);
}

// What there is: pictures to start from, and the columns that filters are made of

let listing = null; // the first pictures of the index
const MOST_LISTED = 1000; // a request
const MOST_SAMPLED = 20_000; // pictures whose metadata make the filters

async function list() {
  listing ||= ask(`/v1/pictures?limit=${MOST_LISTED}`).catch((error) => {
    listing = null;
    throw error;
  });
  return listing;
}

async function showStart() {
  const { signal } = running;
  clear();
  shown = { hits: [], phases: null };
  document.body.classList.add("from-start");
  try {
    const { pictures: all } = await list();
    if (signal.aborted) return;
    if (!all.length) return message({ title: say("empty"), detail: say("emptyHelp"), symbol: "lens", actions: [] });
    const some = Math.min(15, all.length);
    showHits(Array.from({ length: some }, (_, i) => all[Math.floor(((i + 0.5) * all.length) / some)]));
    at("count").textContent = say("startHere");
  } catch (error) {
    if (!signal.aborted) showError(error, signal);
  }
}

// Filters: one control a column, made from the values that the first pictures have

const CONDITION = /^\s*(.+?)\s*(!=|<=|>=|=|<|>|~)\s*(.*?)\s*$/s; // as `cig search --where` reads it
const CHOICES = 40; // values of a column that are a list to choose from; more are a text to look for
let columns = [];

function columnsOf(pictures) {
  const values = new Map();
  for (const { metadata } of pictures) {
    for (const [column, value] of Object.entries(metadata || {})) {
      if (value === null || value === "" || typeof value === "object" || /[=<>!~]/.test(column)) continue;
      if (!values.has(column)) values.set(column, new Set());
      values.get(column).add(String(value));
    }
  }
  return [...values].map(([name, found]) => ({ name, values: [...found].sort(new Intl.Collator(language, { numeric: true }).compare) }));
}

const isNumeric = (column) => column.values.length > 6 && column.values.every((value) => Number.isFinite(Number(value)));

function valueOf(column, sign) {
  const condition = query.where.map((text) => CONDITION.exec(text)).find((parts) => parts?.[1] === column && parts[2] === sign);
  return condition ? condition[3] : "";
}

function setCondition(column, sign, value) {
  const others = query.where.filter((text) => {
    const parts = CONDITION.exec(text);
    return !(parts?.[1] === column && parts[2] === sign);
  });
  change({ where: value ? [...others, `${column}${sign}${value}`] : others }, { stay: true });
}

function control(column, sign, label) {
  const properties = { value: valueOf(column.name, sign), onchange: (event) => setCondition(column.name, sign, event.target.value.trim()) };
  if (sign !== "=") return make("input", { ...properties, type: sign === "~" ? "text" : "number", step: "any", label, placeholder: sign === ">=" ? column.values[0] : sign === "<=" ? column.values.at(-1) : "" });
  const choices = column.values.includes(properties.value) || !properties.value ? column.values : [properties.value, ...column.values];
  const select = make("select", { label }, make("option", { value: "", textContent: say("all") }), ...choices.map((value) => make("option", { value, textContent: value })));
  return Object.assign(select, properties);
}

function field(column) {
  const head = make("span", { textContent: column.name });
  if (isNumeric(column)) {
    const ends = [control(column, ">=", say("from", { column: column.name })), "–", control(column, "<=", say("to", { column: column.name }))];
    return make("div", { className: "field" }, head, make("span", { className: "between" }, ...ends));
  }
  const [sign, label] = column.values.length <= CHOICES ? ["=", column.name] : ["~", say("contains", { column: column.name })];
  return make("div", { className: "field" }, head, control(column, sign, label));
}

function showColumns() {
  if (!at("columns").contains(document.activeElement)) at("columns").replaceChildren(...columns.map(field));
}

function chips() {
  const without = (condition) => () => change({ where: query.where.filter((other) => other !== condition) }, { stay: true });
  const all = query.where.map((condition) => [condition.replace(CONDITION, "$1 $2 $3"), without(condition)]);
  if (query.least) all.push([`${say("score")} ≥ ${query.least.toFixed(2)}`, () => change({ least: 0 }, { stay: true })]);
  if (query.group) all.push([say("perGroup", { column: query.group }), () => change({ group: "" }, { stay: true })]);
  return all.map(([text, remove]) => make("li", {}, make("button", { type: "button", label: say("remove", { name: text }), onclick: remove }, make("span", { textContent: text }), shape("cross"))));
}

function showLeast() {
  const least = Number(form.elements.least.value);
  at("least-shown").textContent = least ? least.toFixed(2) : say("any");
}

function setColumns(pictures) {
  columns = columnsOf(pictures);
  const options = columns.filter((column) => column.values.length > 1).map(({ name }) => make("option", { value: name, textContent: name }));
  form.elements.group.replaceChildren(make("option", { value: "", textContent: "—" }), ...options);
  at("grouping").hidden = !options.length;
  form.elements.group.value = query.group;
  showColumns();
}

async function prepareFilters() {
  const first = await list().catch(() => ({ pictures: [] }));
  if (first.total) at("size").textContent = say("size", { n: first.total });
  setColumns(first.pictures);
}

// The rest of the listing, once someone filters: a small index is read whole, of a large one a part
async function readOn() {
  let page = await list();
  const pictures = [...page.pictures];
  while (page.next && pictures.length < MOST_SAMPLED) {
    page = await ask(`/v1/pictures?limit=${MOST_LISTED}&after=${encodeURIComponent(page.next)}`);
    pictures.push(...page.pictures);
  }
  setColumns(pictures);
}

// One picture, enlarged

let enlargedIndex = -1;

function enlarge(index) {
  const hit = shown.hits[index];
  enlargedIndex = index;
  enlargePicture({ name: hit.name, source: pictureUrl(hit.name, 1024), facts: { ...(hit.score === undefined ? {} : { [say("score")]: hit.score.toFixed(4) }), ...hit.metadata } });
  at("before").disabled = index === 0;
  at("after").disabled = index === shown.hits.length - 1;
  for (const id of ["before", "after", "use", "join"]) at(id).hidden = false;
  at("join").hidden = query.pictures.length >= MOST_PICTURES;
}

function enlargePicture({ name, source, facts = {} }) {
  const text = (value) => (typeof value === "object" && value ? JSON.stringify(value) : String(value ?? ""));
  for (const id of ["before", "after", "use", "join"]) at(id).hidden = true;
  Object.assign(at("enlarged-picture"), { src: source, alt: name });
  at("enlarged-name").textContent = name.slice(name.lastIndexOf("/") + 1);
  at("enlarged-folder").textContent = folderOf(name);
  at("facts").replaceChildren(...Object.entries(facts).map(([key, value]) => make("div", {}, make("dt", { textContent: key }), make("dd", { textContent: text(value) }))));
  if (!at("enlarged").open) at("enlarged").showModal();
}

function step(by) {
  const next = enlargedIndex + by;
  if (!at("use").hidden && next >= 0 && next < shown.hits.length) enlarge(next);
}

// Events

const OURS = "application/x-cig-picture"; // a hit that is dragged to the query
const TITLE = document.title;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!query.pictures.length && !typed().text) return form.elements.text.focus();
  change({});
});
form.elements.least.addEventListener("input", showLeast);
form.elements.least.addEventListener("change", () => change({ least: Number(form.elements.least.value) }, { stay: true }));
form.elements.group.addEventListener("change", () => change({ group: form.elements.group.value }, { stay: true }));
form.elements.imagine?.addEventListener("change", () => change({ imagine: form.elements.imagine.checked }));
at("add").addEventListener("click", () => at("files").click());
at("files").addEventListener("change", () => {
  addFiles([...at("files").files]);
  at("files").value = "";
});
at("refine").addEventListener("click", readOn, { once: true });
at("refine").addEventListener("click", () => {
  at("panel").hidden = !at("panel").hidden;
  at("refine").setAttribute("aria-expanded", !at("panel").hidden);
});
at("more").addEventListener("click", () => {
  const seen = shown.hits.length;
  change({ k: Math.min(MOST_HITS, query.k + PAGE) }, { replace: true, stay: true }).then(() => document.querySelectorAll(".show")[seen]?.focus({ preventScroll: true }));
});
at("first").addEventListener("click", () => showPhase(0));
at("second").addEventListener("click", () => showPhase(1));
at("skip").addEventListener("click", () => at("answer").focus());
at("close").addEventListener("click", () => at("enlarged").close());
at("before").addEventListener("click", () => step(-1));
at("after").addEventListener("click", () => step(1));
at("use").addEventListener("click", () => useAsReference(shown.hits[enlargedIndex].name));
at("join").addEventListener("click", () => {
  const { name } = shown.hits[enlargedIndex];
  at("enlarged").close();
  addPictures([{ name }]);
});
at("enlarged").addEventListener("click", (event) => event.target === at("enlarged") && at("enlarged").close());
at("enlarged").addEventListener("keydown", (event) => step({ ArrowLeft: -1, ArrowRight: 1 }[event.key] || NaN));

addEventListener("popstate", readAddress);
addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  addFiles(files);
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
addEventListener("dragend", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const name = event.dataTransfer.getData(OURS);
  if (name) addPictures([{ name }]);
  else if (event.dataTransfer.files.length) addFiles([...event.dataTransfer.files]);
});
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, select") || at("enlarged").open) return;
  event.preventDefault();
  form.elements.text.focus();
});

translate();
readAddress();
prepareFilters();
