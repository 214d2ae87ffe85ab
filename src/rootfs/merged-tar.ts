/** The merged tree as one tar archive, for builders that start from a directory. */
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { BLOCK_SIZE, type DataWriter } from "../ext4/ext4.ts";
import { encodeHeader, END_OF_ARCHIVE, padTo, type TarEntry } from "../layers/layers.ts";
import { ROOT, type FileTree, type NodeFields } from "../util/file-tree/file-tree.ts";

/** An inode and where its content lies. */
type Node = NodeFields & { extents: ArrayLike<number> };

/** A sparse file may be written with its map only when it has holes worth a map. */
const COPY = 1024 * 1024;

/** Writes everything to a file. */
class Output {
  private readonly fd: number;
  constructor(path: string) {
    this.fd = openSync(path, "wx", 0o600);
  }
  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      done += writeSync(this.fd, bytes, done, bytes.length - done);
    }
  }
  close(): void {
    closeSync(this.fd);
  }
}

/** The header of a node under a name. */
function headerOf(node: NodeFields, path: string): TarEntry {
  return {
    kind: node.kind,
    path,
    link: node.target,
    mode: node.mode,
    uid: node.uid,
    gid: node.gid,
    size: node.size,
    mtime: node.mtime,
    mtimeNsec: node.mtimeNsec,
    major: node.major,
    minor: node.minor,
    xattrs: node.xattrs === undefined ? undefined : new Map(node.xattrs),
  };
}

/** Stored pieces of a file: triples of offset, length and place in the pool. */
function piecesOf(node: Node): [number, number, number][] {
  const { extents } = node;
  const pieces: [number, number, number][] = [];
  for (let i = 0; i < extents.length; i += 3) {
    const offset = (extents[i] ?? 0) * BLOCK_SIZE;
    const length = Math.min((extents[i + 2] ?? 0) * BLOCK_SIZE, node.size - offset);
    const last = pieces.at(-1);
    const place = (extents[i + 1] ?? 0) * BLOCK_SIZE;
    if (last !== undefined && last[0] + last[1] === offset && last[2] + last[1] === place) {
      last[1] += length;
    } else pieces.push([offset, length, place]);
  }
  return pieces;
}

/** A regular file: as it is, or with a map (PAX sparse 1.0) when it has holes. */
function writeFile(out: Output, pool: number, node: Node, path: string): void {
  const pieces = piecesOf(node);
  const stored = pieces.reduce((sum, [, length]) => sum + length, 0);
  if (stored === node.size) out.write(encodeHeader(headerOf(node, path)));
  else {
    // The map ends with an empty piece at the end of the file, as GNU tar writes it.
    const numbers = [
      pieces.length + 1,
      ...pieces.flatMap(([at, length]) => [at, length]),
      node.size,
      0,
    ];
    const lines = Buffer.from(numbers.map((n) => `${n}\n`).join(""));
    const map = Buffer.concat([lines, padTo(lines.length)]);
    const records = [
      ["GNU.sparse.major", "1"],
      ["GNU.sparse.minor", "0"],
      ["GNU.sparse.realsize", String(node.size)],
    ] as const;
    out.write(encodeHeader(headerOf(node, path), map.length + stored, records));
    out.write(map);
  }
  const buffer = Buffer.allocUnsafe(COPY);
  for (const [, length, place] of pieces) {
    for (let done = 0; done < length;) {
      const count = readSync(pool, buffer, 0, Math.min(COPY, length - done), place + done);
      if (count === 0) throw new RangeError("the pool is shorter than its files");
      out.write(buffer.subarray(0, count));
      done += count;
    }
  }
  out.write(padTo(stored));
}

/**
 * Write a merged tree as an archive: `./` first, directories before what they hold.
 * @param data knows where contents lie in the pool
 * @param pool path of the file that contents lie in
 * @param keep leave a node out (device nodes, say), or change its mode
 * @returns names written, the root not counted
 */
export function writeMergedTar(
  tree: FileTree,
  data: DataWriter,
  pool: string,
  output: string,
  keep: (node: NodeFields) => NodeFields | undefined,
): number {
  const out = new Output(output);
  const poolFd = openSync(pool, "r");
  let written = 0;
  try {
    const first = new Map<number, string>();
    const queue: [number, string][] = [[ROOT, "./"]];
    for (let item = queue.pop(); item !== undefined; item = queue.pop()) {
      const [node, path] = item;
      const shown = keep(tree.fields(node));
      if (shown === undefined) continue;
      const known = first.get(node);
      if (known !== undefined) {
        const link = headerOf(shown, path);
        out.write(
          encodeHeader({ ...link, kind: "hardlink", link: known, size: 0, xattrs: undefined }),
        );
      } else if (shown.kind === "file") {
        const extents = data.extentsOf(tree.contents[node] ?? 0);
        writeFile(out, poolFd, { ...shown, extents }, path);
      } else out.write(encodeHeader(headerOf(shown, path)));
      written++;
      if (shown.kind !== "directory") first.set(node, path);
      const children: [number, string][] = [];
      for (let name = tree.first(node); name !== 0; name = tree.next(name)) {
        const child = tree.child(name);
        const slash = tree.kind(child) === "directory" ? "/" : "";
        children.push([child, `${path}${tree.name(name)}${slash}`]);
      }
      // Popped from the end: last in, first out.
      for (const child of children.reverse()) queue.push(child);
    }
    out.write(END_OF_ARCHIVE);
  } finally {
    closeSync(poolFd);
    out.close();
  }
  return written - 1;
}
