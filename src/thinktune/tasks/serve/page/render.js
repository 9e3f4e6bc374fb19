// Text of the model as a part of the page. It is hostile by assumption: Markdown is parsed without
// raw HTML, what comes out is sanitized down to a list of elements, and formulas are built as
// MathML by KaTeX afterwards, which is told to trust nothing.

import DOMPurify from "./vendor/purify.mjs";
import katex from "./vendor/katex.mjs";
import MarkdownIt from "./vendor/markdown-it.mjs";

const LONGEST_FORMULA = 4000;
const ELEMENTS = [
  ..."p br hr em strong s code pre blockquote ul ol li a span div".split(" "),
  ..."h1 h2 h3 h4 h5 h6 table thead tbody tr th td sup sub".split(" "),
];
const ALLOWED = {
  ALLOWED_TAGS: ELEMENTS,
  ALLOWED_ATTR: ["href", "title", "class", "start", "data-tex", "data-display", "rel", "target"],
  // Every other attribute must hold such an address, whatever it is for.
  ADD_URI_SAFE_ATTR: ["start", "data-tex", "data-display", "rel", "target"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const markdown = new MarkdownIt({ html: false, linkify: false, breaks: true });
markdown.disable("image");
markdown.validateLink = (url) => /^(?:https?:|mailto:)/i.test(url.trim());
markdown.renderer.rules.link_open = (tokens, index, options, env, self) => {
  tokens[index].attrSet("rel", "noopener noreferrer nofollow");
  tokens[index].attrSet("target", "_blank");
  return self.renderToken(tokens, index, options);
};

const escaped = (text) => markdown.utils.escapeHtml(text);
const mathHtml = (tex, display) =>
  `<span class="math${display ? " display" : ""}" data-tex="${escaped(tex)}"` +
  `${display ? ' data-display="1"' : ""}>${escaped(tex)}</span>`;

// \( … \), \[ … \], $$ … $$, and $ … $ where it looks like a formula rather than two prices.
const PAIRS = [
  ["\\(", "\\)", false],
  ["\\[", "\\]", true],
  ["$$", "$$", true],
];

/** Where a mark comes next, or -1: looked for once for all places before it, because a text may be
 * full of opening marks that nothing closes. `state.src` is one text for a state's whole life. */
function nextMark(state, mark, from) {
  const known = (state.nextMarks ??= {});
  const last = known[mark];
  if (last && last.from <= from && (last.at < 0 || from <= last.at)) return last.at;
  const at = state.src.indexOf(mark, from);
  known[mark] = { from, at };
  return at;
}

function mathRule(state, silent) {
  const { src, pos, posMax } = state;
  const first = src.charCodeAt(pos);
  if (first !== 0x5c && first !== 0x24) return false;
  for (const [open, close, display] of PAIRS) {
    if (!src.startsWith(open, pos)) continue;
    const end = nextMark(state, close, pos + open.length);
    if (end < 0 || end >= posMax) return false;
    return push(state, silent, src.slice(pos + open.length, end), end + close.length, display);
  }
  if (first !== 0x24) return false;
  const found = /^\$(?![\s\d.,]*\s)([^$\n]*[^$\s\\])\$(?!\d)/.exec(src.slice(pos, pos + 500));
  return found ? push(state, silent, found[1], pos + found[0].length, false) : false;
}

function push(state, silent, tex, after, display) {
  if (!tex.trim() || after > state.posMax) return false;
  if (!silent) {
    const token = state.push("math", "span", 0);
    token.content = tex;
    token.meta = { display };
  }
  state.pos = after;
  return true;
}

// A formula over several lines is one paragraph, whatever Markdown would make of its lines.
function mathBlock(state, startLine, endLine, silent) {
  const begin = state.bMarks[startLine] + state.tShift[startLine];
  const open = state.src.slice(begin, begin + 2);
  if (open !== "$$" && open !== "\\[") return false;
  const close = open === "$$" ? "$$" : "\\]";
  const end = nextMark(state, close, begin + 2);
  if (end < 0) return false;
  const line = lineOf(state, end + 2, endLine);
  if (line >= endLine || state.src.slice(end + 2, state.eMarks[line]).trim()) return false;
  if (silent) return true;
  const token = state.push("math", "span", 0);
  token.content = state.src.slice(begin + 2, end);
  token.meta = { display: true };
  state.line = line + 1;
  return true;
}

/** The first line that ends at a place or behind it; lines end in order. */
function lineOf(state, place, endLine) {
  let [low, high] = [0, endLine];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (state.eMarks[middle] < place) low = middle + 1;
    else high = middle;
  }
  return low;
}

markdown.inline.ruler.before("escape", "math", mathRule);
markdown.block.ruler.before("paragraph", "math", mathBlock, { alt: ["paragraph", "list"] });
markdown.renderer.rules.math = (tokens, index) =>
  mathHtml(tokens[index].content, tokens[index].meta.display);

/** Puts text into an element, as Markdown with formulas. */
export function show(element, text) {
  const fragment = DOMPurify.sanitize(markdown.render(text), ALLOWED);
  for (const place of fragment.querySelectorAll("[data-tex]")) formula(place);
  element.replaceChildren(fragment);
}

function formula(place) {
  const tex = place.dataset.tex;
  const options = {
    output: "mathml",
    displayMode: "display" in place.dataset,
    throwOnError: true,
    trust: false,
    strict: "ignore",
    maxSize: 20,
    maxExpand: 500,
  };
  try {
    if (tex.length > LONGEST_FORMULA) throw new Error("too long");
    katex.render(tex, place, options);
  } catch {
    place.classList.add("raw");
    place.textContent = tex;
  }
}
