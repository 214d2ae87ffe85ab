import { expect, test } from "vitest";
import { takingOut } from "./forms.ts";
import { replaceText } from "./replace.ts";

/** With all that is written in another way somewhere. */
const value = `k/+='&<>"~*é z9`;
const held = [{ name: "K", value, places: [], domains: [], placeholder: "PLACEHOLDER" }];

test.each([
  ["Python's quote", "k/%2B%3D%27%26%3C%3E%22~%2A%C3%A9%20z9"],
  ["JavaScript's encodeURI", "k/+='&%3C%3E%22~*%C3%A9%20z9"],
  ["Go's PathEscape", "k%2F+=%27&%3C%3E%22~%2A%C3%A9%20z9"],
  ["Go's QueryEscape", "k%2F%2B%3D%27%26%3C%3E%22~%2A%C3%A9+z9"],
  ["URLSearchParams", new URLSearchParams({ k: value }).toString().slice(2)],
  ["Go's JSON", String.raw`k/+='\u0026\u003c\u003e\"~*é z9`],
  ["Python's JSON", String.raw`k/+='&<>\"~*\u00e9 z9`],
  ["PHP's JSON", String.raw`k\/+='&<>\"~*\u00e9 z9`],
  ["mustache", "k&#x2F;+&#x3D;&#39;&amp;&lt;&gt;&quot;~*é z9"],
  ["OWASP", "k&#x2f;+=&#x27;&amp;&lt;&gt;&quot;~*é z9"],
  ["Go's templates", "k/&#43;=&#39;&amp;&lt;&gt;&#34;~*é z9"],
  [".NET's HTML", "k/&#x2B;=&#x27;&amp;&lt;&gt;&quot;~*&#xE9; z9"],
  ["React", "k/+=&#x27;&amp;&lt;&gt;&quot;~*é z9"],
  [".NET's JSON", String.raw`k/\u002B=\u0027\u0026\u003C\u003E\u0022~*\u00E9 z9`],
])("a value as %s writes it", (_, written) => {
  const bytes = Buffer.from(`[${written}]`).toString("latin1");
  expect(replaceText(bytes, takingOut(held, false))).toBe("[PLACEHOLDER]");
});
