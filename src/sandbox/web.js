// Names of the web platform that app code may expect: loaded for apps whose text has one of them, never otherwise.
//
// As much of each as apps use. URL knows schemes with an authority and opaque ones, no international host names; TextDecoder
// knows UTF-8. What is not supported throws.

const invalid = (what) => {
  throw new TypeError(what);
};

// UTF-8 --------------------------------------------------------------------------------------------------------------

class TextEncoder {
  get encoding() {
    return "utf-8";
  }
  encode(text = "") {
    const input = String(text).toWellFormed();
    const bytes = new Uint8Array(input.length * 3);
    let at = 0;
    for (const character of input) {
      const code = character.codePointAt(0);
      if (code < 0x80) bytes[at++] = code;
      else if (code < 0x800) {
        bytes[at++] = 0xc0 | (code >> 6);
        bytes[at++] = 0x80 | (code & 63);
      } else {
        if (code < 0x10000) bytes[at++] = 0xe0 | (code >> 12);
        else {
          bytes[at++] = 0xf0 | (code >> 18);
          bytes[at++] = 0x80 | ((code >> 12) & 63);
        }
        bytes[at++] = 0x80 | ((code >> 6) & 63);
        bytes[at++] = 0x80 | (code & 63);
      }
    }
    return bytes.slice(0, at);
  }
}

class TextDecoder {
  #fatal;
  constructor(label = "utf-8", { fatal = false } = {}) {
    if (!/^(utf-?8|unicode-1-1-utf-8)$/i.test(String(label).trim())) throw new RangeError(`no decoder for ${label}`);
    this.#fatal = Boolean(fatal);
  }
  get encoding() {
    return "utf-8";
  }
  get fatal() {
    return this.#fatal;
  }
  decode(input = new Uint8Array()) {
    const view = ArrayBuffer.isView(input) ? input : new Uint8Array(input);
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    const parts = [];
    let i = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0;
    while (i < bytes.length) {
      const lead = bytes[i++];
      if (lead < 0x80) {
        parts.push(String.fromCharCode(lead));
        continue;
      }
      let more = lead >= 0xc2 && lead < 0xe0 ? 1 : lead >= 0xe0 && lead < 0xf0 ? 2 : lead >= 0xf0 && lead < 0xf5 ? 3 : 0;
      let code = more === 0 ? -1 : lead & (0x3f >> more);
      const least = [0, 0x80, 0x800, 0x10000][more];
      for (; more > 0 && code >= 0; more -= 1) {
        if ((bytes[i] & 0xc0) === 0x80) code = (code << 6) | (bytes[i++] & 63);
        else code = -1;
      }
      if (code < least || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
        if (this.#fatal) invalid("the bytes are not UTF-8");
        code = 0xfffd;
      }
      parts.push(String.fromCodePoint(code));
    }
    return parts.join("");
  }
}

// URL ----------------------------------------------------------------------------------------------------------------

const PORTS = { "http:": "80", "https:": "443", "ws:": "80", "wss:": "443", "ftp:": "21" };
const escape_all = (text, allowed) => {
  let out = "";
  for (const character of String(text).toWellFormed()) out += allowed.test(character) ? character : encodeURIComponent(character);
  return out;
};
const PATH = /[A-Za-z0-9\-._~!$&'()*+,;=:@%/\\|^[\]]/;
const QUERY = /[A-Za-z0-9\-._~!$&()*+,;=:@%/?\\|^[\]{}`]/;
const form = (text) =>
  encodeURIComponent(String(text).toWellFormed()).replace(/%20/g, "+").replace(/[!'()~]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase());
const unform = (text) => {
  try {
    return decodeURIComponent(text.replace(/\+/g, " "));
  } catch {
    return text;
  }
};

class URLSearchParams {
  #pairs = [];
  #changed = null;
  constructor(init = "", changed = null) {
    if (typeof init === "string") {
      for (const piece of init.replace(/^\?/, "").split("&")) {
        if (piece === "") continue;
        const [name, ...value] = piece.split("=");
        this.#pairs.push([unform(name), unform(value.join("="))]);
      }
    } else {
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const [name, value] of pairs) this.#pairs.push([String(name), String(value)]);
    }
    this.#changed = changed;
  }
  #set(pairs) {
    this.#pairs = pairs;
    if (this.#changed) this.#changed(this.toString());
  }
  get size() {
    return this.#pairs.length;
  }
  append(name, value) {
    this.#set([...this.#pairs, [String(name), String(value)]]);
  }
  delete(name) {
    this.#set(this.#pairs.filter(([key]) => key !== String(name)));
  }
  get(name) {
    return this.#pairs.find(([key]) => key === String(name))?.[1] ?? null;
  }
  getAll(name) {
    return this.#pairs.filter(([key]) => key === String(name)).map(([, value]) => value);
  }
  has(name) {
    return this.#pairs.some(([key]) => key === String(name));
  }
  set(name, value) {
    const key = String(name);
    const first = this.#pairs.findIndex(([other]) => other === key);
    if (first < 0) return this.append(key, value);
    const rest = this.#pairs.filter(([other], at) => at === first || other !== key);
    this.#set(rest.map((pair) => (pair[0] === key ? [key, String(value)] : pair)));
  }
  sort() {
    this.#set([...this.#pairs].sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
  }
  forEach(act, self) {
    for (const [name, value] of this.#pairs) act.call(self, value, name, this);
  }
  *entries() {
    for (const [name, value] of this.#pairs) yield [name, value];
  }
  *keys() {
    for (const [name] of this.#pairs) yield name;
  }
  *values() {
    for (const [, value] of this.#pairs) yield value;
  }
  [Symbol.iterator]() {
    return this.entries();
  }
  toString() {
    return this.#pairs.map(([name, value]) => `${form(name)}=${form(value)}`).join("&");
  }
}

const no_dots = (path) => {
  const out = [];
  const parts = path.split("/");
  parts.forEach((part, at) => {
    const last = at === parts.length - 1;
    if (/^(\.|%2e)$/i.test(part)) last && out.push("");
    else if (/^(\.|%2e){2}$/i.test(part)) {
      if (out.length > 1) out.pop();
      if (last) out.push("");
    } else out.push(part);
  });
  return out.join("/") || "/";
};

function parse_authority(protocol, text) {
  const [, credentials = "", host = "", port = ""] = /^(?:([^@]*)@)?(\[[0-9a-f:.]+\]|[^:@]*)(?::(\d*))?$/i.exec(text) ?? invalid(`no host in ${text}`);
  const hostname = host.toLowerCase();
  if (hostname === "" || /[^a-z0-9.\-_[\]:]/.test(hostname) || Number(port) > 65535) invalid(`no valid host: ${text}`);
  const [username = "", ...password] = credentials.split(":");
  const number = port === "" ? "" : String(Number(port));
  return { username, password: password.join(":"), hostname, port: number === PORTS[protocol] ? "" : number };
}

function parse(text, base) {
  const [, scheme, before, query, fragment] = /^([a-z][a-z0-9+.-]*:)?([^?#]*)(\?[^#]*)?(#.*)?$/is.exec(text.trim()) ?? invalid(`not a URL: ${text}`);
  const search = query === undefined || query === "?" ? "" : escape_all(query, QUERY);
  const hash = fragment === undefined || fragment === "#" ? "" : "#" + escape_all(fragment.slice(1), QUERY);
  if (scheme !== undefined) {
    const protocol = scheme.toLowerCase();
    const rest = /^[\\/]{2}([^\\/]*)(.*)$/s.exec(before);
    if (rest === null) {
      if (protocol in PORTS) invalid(`no host in ${text}`);
      return { protocol, username: "", password: "", hostname: "", port: "", pathname: escape_all(before, PATH), search, hash, opaque: true };
    }
    return { protocol, ...parse_authority(protocol, rest[1]), pathname: no_dots(escape_all(rest[2], PATH)), search, hash };
  }
  if (base === undefined || base.opaque) invalid(`not an absolute URL: ${text}`);
  if (/^[\\/]{2}/.test(before)) return parse(base.protocol + text.trim());
  if (before === "") return { ...base, search: query === undefined ? base.search : search, hash };
  const path = escape_all(before, PATH);
  const pathname = no_dots(path.startsWith("/") ? path : base.pathname.replace(/[^/]*$/, "") + path);
  return { ...base, pathname, search, hash };
}

class URL {
  #parts;
  #params = null;
  constructor(url, base) {
    this.#parts = parse(String(url), base === undefined ? undefined : parse(String(base)));
  }
  static canParse(url, base) {
    try {
      return new URL(url, base) !== null;
    } catch {
      return false;
    }
  }
  get protocol() {
    return this.#parts.protocol;
  }
  get username() {
    return this.#parts.username;
  }
  get password() {
    return this.#parts.password;
  }
  get hostname() {
    return this.#parts.hostname;
  }
  get port() {
    return this.#parts.port;
  }
  get host() {
    return this.port === "" ? this.hostname : `${this.hostname}:${this.port}`;
  }
  get origin() {
    return this.protocol in PORTS ? `${this.protocol}//${this.host}` : "null";
  }
  get pathname() {
    return this.#parts.pathname;
  }
  set pathname(path) {
    this.#parts.pathname = no_dots("/" + escape_all(path, PATH).replace(/^\//, ""));
  }
  get search() {
    return this.#parts.search;
  }
  set search(text) {
    const query = String(text).replace(/^\?/, "");
    this.#parts.search = query === "" ? "" : "?" + escape_all(query, QUERY);
    this.#params = null;
  }
  get hash() {
    return this.#parts.hash;
  }
  set hash(text) {
    const fragment = String(text).replace(/^#/, "");
    this.#parts.hash = fragment === "" ? "" : "#" + escape_all(fragment, QUERY);
  }
  get searchParams() {
    this.#params ??= new URLSearchParams(this.search, (query) => {
      this.#parts.search = query === "" ? "" : "?" + query;
    });
    return this.#params;
  }
  get href() {
    const { protocol, username, password, pathname, search, hash, opaque } = this.#parts;
    if (opaque) return protocol + pathname + search + hash;
    const credentials = username === "" && password === "" ? "" : `${username}${password === "" ? "" : ":" + password}@`;
    return `${protocol}//${credentials}${this.host}${pathname}${search}${hash}`;
  }
  toString() {
    return this.href;
  }
  toJSON() {
    return this.href;
  }
}

// Copies -------------------------------------------------------------------------------------------------------------

function structuredClone(value, seen) {
  if (typeof value === "function" || typeof value === "symbol") throw new TypeError(`a ${typeof value} cannot be cloned`);
  if (typeof value !== "object" || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  const keep = (copy) => {
    seen.set(value, copy);
    return copy;
  };
  if (value instanceof Date) return keep(new Date(value.getTime()));
  if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
  if (value instanceof ArrayBuffer) return keep(value.slice(0));
  if (value instanceof DataView) return keep(new DataView(structuredClone(value.buffer, seen), value.byteOffset, value.byteLength));
  if (ArrayBuffer.isView(value)) return keep(value.slice());
  if (value instanceof Map) {
    const copy = keep(new Map());
    for (const [key, item] of value) copy.set(structuredClone(key, seen), structuredClone(item, seen));
    return copy;
  }
  if (value instanceof Set) {
    const copy = keep(new Set());
    for (const item of value) copy.add(structuredClone(item, seen));
    return copy;
  }
  if (value instanceof Promise) throw new TypeError("a promise cannot be cloned");
  const copy = keep(Array.isArray(value) ? new Array(value.length) : value instanceof Error ? Object.create(Object.getPrototypeOf(value)) : {});
  if (value instanceof Error) Object.defineProperty(copy, "message", { value: value.message, writable: true, configurable: true });
  for (const key of Object.keys(value)) copy[key] = structuredClone(value[key], seen);
  return copy;
}

export default { URL, URLSearchParams, TextEncoder, TextDecoder, structuredClone: (value) => structuredClone(value, new Map()) };
