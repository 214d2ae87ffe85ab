/** A list of things with columns, which scrolls inside its own box on a narrow screen. */
import type { ComponentChildren } from "preact";

/** A column's heading, or that with classes: `num` to the right, `wide` on wide screens alone. */
export type Column = string | readonly [label: string, classes: string];

/** The last column's heading where it holds buttons: read out, not shown. */
export const ACTIONS: Column = ["Actions", "hidden"];

/** The table. @param props.label what is listed; `children`: its rows; `below`: what stands under them */
export function Table(props: {
  label: string;
  columns: readonly Column[];
  children: ComponentChildren;
  below?: ComponentChildren;
}) {
  return (
    <div class="table-box" tabIndex={0} role="region" aria-label={props.label}>
      <table class="list">
        <thead>
          <tr>
            {props.columns.map((column) => {
              const [label, classes] = typeof column === "string" ? [column] : column;
              return column === ACTIONS ? (
                <th key={label} scope="col">
                  <span class="hidden">{label}</span>
                </th>
              ) : (
                <th key={label} scope="col" class={classes}>
                  {label}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>{props.children}</tbody>
      </table>
      {props.below}
    </div>
  );
}
