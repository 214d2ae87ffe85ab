/** What frames of a guest stream are, here and in a browser: protocol/README.md section 4. */

/** Frame types. */
export const FrameType = {
  START: 0x00,
  STDIN: 0x01,
  STDIN_EOF: 0x02,
  RESIZE: 0x03,
  SIGNAL: 0x04,
  ACK: 0x05,
  ATTACH: 0x06,
  DETACH: 0x07,
  ATTACHED: 0x10,
  STDOUT: 0x11,
  STDERR: 0x12,
  STDIN_ACK: 0x13,
  GAP: 0x14,
  EXIT: 0x15,
  FAIL: 0x16,
  OUT_EOF: 0x17,
} as const;

/** Longest payload of a frame, in bytes. */
export const MAX_PAYLOAD = 256 * 1024;
