#!/bin/sh
# Prints rabbitmq-definitions.json with other logins than those for development. RabbitMQ reads no environment in its
# definitions, so whoever imports them has to write the passwords into them before.
set -eu

for value in "$RABBITMQ_USER" "$RABBITMQ_PASSWORD" "$INVENTORY_RABBITMQ_PASSWORD" "$ORDERS_RABBITMQ_PASSWORD"; do
    case $value in
    '' | *[!A-Za-z0-9._~-]*)
        echo "a login of the broker is empty, or has other characters in it than letters, digits and -._~" >&2
        exit 1
        ;;
    esac
done

sed \
    -e "s/\"rabbit_user\"/\"$RABBITMQ_USER\"/" \
    -e "s/\"rabbit_pass\"/\"$RABBITMQ_PASSWORD\"/" \
    -e "/\"name\": \"ms-inventory\"/ s/\"inventory_pass\"/\"$INVENTORY_RABBITMQ_PASSWORD\"/" \
    -e "/\"name\": \"ms-orders\"/ s/\"orders_pass\"/\"$ORDERS_RABBITMQ_PASSWORD\"/" \
    "$(dirname "$0")/rabbitmq-definitions.json"
