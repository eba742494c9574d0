import pyarrow as pa

from captioner.schemas.image_record import plan_schema


def test_a_plan_has_the_records_columns_and_then_the_manifests() -> None:
    schema = plan_schema(pa.schema([("id", pa.int64())]))
    assert schema.names == ["image_uri", "image_version", "id"]
    assert not schema.field("image_uri").nullable


def test_a_source_without_columns_of_its_own_has_the_records_only() -> None:
    assert plan_schema().names == ["image_uri", "image_version"]
