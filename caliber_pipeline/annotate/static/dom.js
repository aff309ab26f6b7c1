// Builds elements from record text. Text is only ever set as text: nothing here can turn it into HTML.

const TAGS = new Set([
  "p", "ul", "ol", "li", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "strong", "em", "s", "code", "pre",
  "br", "hr", "h3", "h4", "h5", "h6", "span",
]);
const RIGHT_TO_LEFT = /^\P{L}*[\u0590-\u08FF\uFB1D-\uFEFC]/u; // by its first letter
const BLOCKS = new Set(["p", "ul", "ol", "blockquote", "h3", "h4", "h5", "h6", "td", "th"]);

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

function build(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const [tag, attributes, children] = node;
  const made = element(TAGS.has(tag) ? tag : "span");
  if (Number.isInteger(attributes.start) && tag === "ol") made.start = attributes.start;
  if (attributes.class === "address") made.className = "address";
  if (BLOCKS.has(tag)) made.dir = "auto";
  made.append(...children.map(build));
  if (tag === "ul" || tag === "ol") made.dir = RIGHT_TO_LEFT.test(made.textContent) ? "rtl" : "ltr"; // where its marks stand
  if (tag !== "table" && tag !== "pre") return made;
  // what scrolls sideways must be reachable by keyboard
  const scroller = tag === "table" ? element("div", { className: "scroll" }, made) : made;
  scroller.tabIndex = 0;
  scroller.setAttribute("role", "region");
  scroller.setAttribute("aria-label", tag === "table" ? "Table" : "Code");
  return scroller;
}

export function showText(target, text, isFormatted) {
  const hasNodes = isFormatted && text.nodes !== null;
  target.classList.toggle("raw", !hasNodes);
  if (hasNodes) target.replaceChildren(...text.nodes.map(build));
  else target.textContent = text.raw;
}
