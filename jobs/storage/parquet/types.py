"""The types that columns of Parquet files get here, so that each can be written to the table."""

import pyarrow as pa


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return a type without dictionaries, views and large variants, at any depth."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(n)) for n in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field), kind.list_size)
    return pa.list_(_plain_field(kind.value_field)) if _is_list(kind) else kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a schema with their plain types."""
    return pa.schema(map(_plain_field, schema))


def least_bytes(kind: pa.DataType) -> int:
    """Return the bytes that each value takes in memory, null or not."""
    if pa.types.is_struct(kind):
        return 1 + sum(least_bytes(kind.field(n).type) for n in range(kind.num_fields))
    if pa.types.is_fixed_size_list(kind):
        return 1 + kind.list_size * least_bytes(kind.value_type)
    return 1 + kind.byte_width if pa.types.is_fixed_size_binary(kind) else 17


def _plain_field(field: pa.Field) -> pa.Field:
    return field.with_type(plain_type(field.type))


def _is_list(kind: pa.DataType) -> bool:
    is_view = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return is_view or pa.types.is_list(kind) or pa.types.is_large_list(kind)
