/** Fields of a form, each with what it means. */
import type { Field, Wishes } from "./field.ts";

function Control(props: { field: Field; value: string; onValue: (value: string) => void }) {
  const { field, value, onValue } = props;
  const id = `field-${field.name}`;
  const common = { id, "aria-describedby": `${id}-help` };
  const onInput = (event: { currentTarget: { value: string } }): void =>
    onValue(event.currentTarget.value);
  switch (field.kind) {
    case "choice":
      return (
        <select {...common} value={value} onChange={onInput}>
          {field.choices?.map((choice) => (
            <option key={choice.value} value={choice.value}>
              {choice.label}
            </option>
          ))}
        </select>
      );
    case "lines":
      return (
        <textarea
          {...common}
          rows={Math.min(6, Math.max(2, value.split("\n").length))}
          placeholder={field.hint}
          spellcheck={false}
          value={value}
          onInput={onInput}
        />
      );
    case "yes":
      return (
        <input
          {...common}
          type="checkbox"
          checked={value !== ""}
          onChange={(event) => onValue(event.currentTarget.checked ? "yes" : "")}
        />
      );
    case "number":
    case "text":
      return (
        <span class="with-unit">
          <input
            {...common}
            type={field.kind}
            min={field.min}
            max={field.max}
            step="any"
            placeholder={field.hint}
            list={field.name === "image" ? "images" : undefined}
            autocomplete="off"
            autocapitalize="off"
            spellcheck={false}
            value={value}
            onInput={onInput}
          />
          {field.unit !== undefined && <span class="unit">{field.unit}</span>}
        </span>
      );
  }
}

/** Fields with what they mean. */
export function Fields(props: {
  fields: readonly Field[];
  wishes: Wishes;
  admin: boolean;
  set: (name: string, value: string) => void;
}) {
  return (
    <div class="fields">
      {props.fields
        .filter(
          ({ admin, shown }) => (props.admin || admin !== true) && (shown?.(props.wishes) ?? true),
        )
        .map((field) => (
          <div class={`field ${field.kind}`} key={field.name}>
            <label class="label" for={`field-${field.name}`}>
              {field.label}
            </label>
            <Control
              field={field}
              value={props.wishes[field.name] ?? ""}
              onValue={(value) => props.set(field.name, value)}
            />
            <span class="help" id={`field-${field.name}-help`}>
              {field.help}
            </span>
          </div>
        ))}
    </div>
  );
}
