-- One database for each service, owned by a role of the same name that can connect to no other. What a service cannot
-- reach it cannot come to depend on.
--
-- Run by psql as a superuser, and as often as one likes: by `cargo dev up`, and by the postgres image on its first
-- start (/docker-entrypoint-initdb.d). Passwords come from the environment; in development each is the role's name.

\set inventory_password inventory
\set orders_password orders
\set users_password users
\getenv inventory_password INVENTORY_DATABASE_PASSWORD
\getenv orders_password ORDERS_DATABASE_PASSWORD
\getenv users_password USERS_DATABASE_PASSWORD

select format('create role %I login password %L', name, password)
from (values
    ('inventory', :'inventory_password'),
    ('orders', :'orders_password'),
    ('users', :'users_password')
) as service (name, password)
where name not in (select rolname from pg_roles) \gexec

select format('create database %I owner %I', name, name)
from (values ('inventory'), ('orders'), ('users')) as service (name)
where name not in (select datname from pg_database) \gexec

-- By default PostgreSQL lets everyone connect everywhere. Owners keep their right.
select format('revoke connect, temporary on database %I from public', datname)
from pg_database
where datname in ('inventory', 'orders', 'users', 'postgres', 'template1') \gexec
