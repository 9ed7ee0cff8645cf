FROM composer:2 AS vendor
COPY composer.json composer.lock /app/
RUN composer install --no-dev --no-scripts --ignore-platform-reqs
FROM php:8.3-apache
RUN docker-php-ext-install pdo_mysql && a2enmod rewrite
COPY --chown=www-data . /var/www/html
COPY --from=vendor /app/vendor /var/www/html/vendor
VOLUME /var/www/html/storage
