/** POSIX ACLs in text form (POSIX 1003.1e draft 17), as star and GNU tar store them. */

const TAGS: Readonly<Record<string, { own: number; named: number }>> = {
  user: { own: 0x01, named: 0x02 },
  u: { own: 0x01, named: 0x02 },
  group: { own: 0x04, named: 0x08 },
  g: { own: 0x04, named: 0x08 },
  mask: { own: 0x10, named: 0 },
  m: { own: 0x10, named: 0 },
  other: { own: 0x20, named: 0 },
  o: { own: 0x20, named: 0 },
};
const NO_ID = 0xffffffff;

/**
 * An ACL as the kernel's attribute has it (version 2). Qualifiers must be numbers, or names with
 * the number as a fourth field (star's way); undefined when one is not.
 */
export function parseAclText(value: string): Uint8Array | undefined {
  const entries: { tag: number; perm: number; id: number }[] = [];
  for (const part of value.split(/[,\n]/)) {
    const line = part.replace(/#.*/, "").trim();
    if (line === "") continue;
    const [kind = "", qualifier = "", rights = "", number] = line.split(":");
    const tags = TAGS[kind];
    const letters = /^([r-])([w-])([x-])/.exec(rights);
    if (tags === undefined || letters === null) return undefined;
    const perm =
      (letters[1] === "r" ? 4 : 0) | (letters[2] === "w" ? 2 : 0) | (letters[3] === "x" ? 1 : 0);
    if (qualifier === "") entries.push({ tag: tags.own, perm, id: NO_ID });
    else {
      const id = number ?? qualifier;
      if (!/^[0-9]{1,10}$/.test(id) || tags.named === 0) return undefined;
      entries.push({ tag: tags.named, perm, id: Number(id) });
    }
  }
  if (entries.length === 0) return undefined;
  entries.sort((a, b) => a.tag - b.tag || a.id - b.id);
  const view = new DataView(new ArrayBuffer(4 + 8 * entries.length));
  view.setUint32(0, 2, true);
  entries.forEach(({ tag, perm, id }, i) => {
    view.setUint16(4 + 8 * i, tag, true);
    view.setUint16(6 + 8 * i, perm, true);
    view.setUint32(8 + 8 * i, id, true);
  });
  return new Uint8Array(view.buffer);
}
